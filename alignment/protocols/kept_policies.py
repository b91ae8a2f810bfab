"""Policies that a run selects, saved so that others can use them."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import jax

from alignment.models.huggingface.card import Provenance
from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.peft import save_adapters
from alignment.models.huggingface.save import fetched
from alignment.models.lora import Lora, merge
from alignment.protocols.arena import Arena
from alignment.protocols.base_models import write_params
from alignment.protocols.contestants import Contestant
from alignment.protocols.policies import Origin, write_checkpoint, write_folder
from alignment.protocols.progress import Stop
from alignment.training import storage
from alignment.types import PyTree


def keep_policy(
  folder: pathlib.Path,
  origin: Origin | None,
  params: PyTree,
  provenance: Provenance,
  *,
  lora: Lora | None = None,
  adapters: PyTree = None,
) -> None:
  """Writes a policy so that others can use it.

  What was trained on a Hugging Face folder becomes one again, or an adapter of
  it in the format of PEFT; another transformer becomes a checkpoint for
  `experiments.convert`, and a mere reward the checkpoint of its params.

  Args:
    folder: replaced where it is there.
    origin: of the policy; None is a mere reward.
    params: of its model, adapters merged.
    provenance: of the policy.
    lora: of the adapters; None where all parameters were trained.
    adapters: that were trained.
  """
  # What was stopped between this and the end of its run is done again.
  shutil.rmtree(folder, ignore_errors=True)
  if origin is None:
    said = {'provenance': dataclasses.asdict(provenance)}
    write_params(folder, params, said)
  elif not origin.folder:
    write_checkpoint(folder, origin, params, provenance)
  elif lora and origin.is_start:
    storage.make_directory(folder.parent)
    family = FAMILIES[origin.architecture]
    save_adapters(
      folder, origin.config, lora, adapters, family, provenance=provenance
    )
  else:
    write_folder(folder, origin, params, provenance)


def whole(arena: Arena, trained: PyTree) -> PyTree:
  """The params of a model of which something was trained in an arena."""
  if arena.lora is None:
    return trained
  # On a mesh adapters lie where the arena's own start need not.
  adapters = jax.tree.map(fetched, trained)
  return merge(arena.start, adapters, arena.lora.scale)


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
  return dataclasses.replace(
    run,
    noise=f'{run.noise}; {label}',
    loss=f'{contestant.name} ({hyper}), aggregate {contestant.aggregate}',
    seeds=(arena.seed,),
    results={
      'cell': label,
      'parameters trained': trains(arena.lora),
      'learning rate, step selected': f'{stop.learning_rate:g}, {stop.step}',
      'noisy validation nll, nats per pair': f'{stop.noisy_nll:.4f}',
    },
  )


def trains(lora: Lora | None) -> str:
  """Which parameters are trained, in words."""
  if lora is None:
    return 'all'
  return f'adapters (LoRA) of rank {lora.rank}, alpha {lora.alpha:g}'
