"""Policies that a run selects, saved so that others can use them."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

from alignment.models.huggingface.card import Provenance
from alignment.models.lora import merge
from alignment.protocols.arena import Arena
from alignment.protocols.base_models import write_params
from alignment.protocols.contestants import Contestant
from alignment.protocols.policies import write_checkpoint, write_folder
from alignment.protocols.progress import Stop
from alignment.types import PyTree


def keep_policy(
  folder: pathlib.Path, arena: Arena, trained: PyTree, provenance: Provenance
) -> None:
  """Writes what was trained in an arena, whole, adapters merged.

  A policy that came from a Hugging Face folder becomes one again, another
  transformer a checkpoint for `experiments.convert`, and a mere reward the
  checkpoint of its params.

  Args:
    folder: replaced where it is there.
    arena: whose start, and origin, it has.
    trained: params, or adapters.
    provenance: of the policy.
  """
  # A cell that was killed after this and before its row is done again.
  shutil.rmtree(folder, ignore_errors=True)
  if arena.lora:
    trained = merge(arena.start, trained, arena.lora.scale)
  origin = arena.origin
  if origin is None:
    said = {'provenance': dataclasses.asdict(provenance)}
    write_params(folder, trained, said)
  elif origin.folder:
    write_folder(folder, origin, trained, provenance)
  else:
    write_checkpoint(folder, origin, trained, provenance)


def provenance_of(
  run: Provenance, arena: Arena, label: str, contestant: Contestant, stop: Stop
) -> Provenance:
  """What is known of one cell's policy.

  Args:
    run: what all of the run's policies have in common.
    arena: of its seed.
    label: of the cell: seed, flip rate, name.
    contestant: its loss.
    stop: where it was selected.
  """
  hyper = ', '.join(f'{name}={value:g}' for name, value in contestant.hyper)
  lora = arena.lora
  trains = f'LoRA of rank {lora.rank}, alpha {lora.alpha:g}' if lora else 'all'
  return dataclasses.replace(
    run,
    noise=f'{run.noise}; {label}',
    loss=f'{contestant.name} ({hyper}), aggregate {contestant.aggregate}',
    seeds=(arena.seed,),
    results={
      'cell': label,
      'parameters trained': trains,
      'learning rate, step selected': f'{stop.learning_rate:g}, {stop.step}',
      'noisy validation nll, nats per pair': f'{stop.noisy_nll:.4f}',
    },
  )
