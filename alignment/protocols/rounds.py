"""What is trained at each flip rate: contestants, controls, their labels."""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from alignment.models.huggingface.card import Provenance
from alignment.protocols import ledger
from alignment.protocols.arena import Arena
from alignment.protocols.assumed_rate import Estimates
from alignment.protocols.bakeoff import (
  Grid,
  Labels,
  opening_loss,
  row_of,
  tune,
)
from alignment.protocols.contestants import Contestant, check_contestant
from alignment.protocols.kept_policies import (
  keep_policy,
  provenance_of,
  whole,
)
from alignment.protocols.labelling import (
  EXACT_FLIPS,
  Noise,
  best_labels,
  complement,
  noisy_labels,
)
from alignment.protocols.progress import CellCheckpoints, Stop
from alignment.training import storage, writers
from alignment.types import PyTree

AT_ZERO = {'cdpo': 'dpo', 'rdpo': 'dpo', 'forward': 'dpo', 'ripo': 'ipo'}
"""Corrections that assume a flip rate of 0 are their uncorrected loss."""

LEAK_RATE = 0.5
"""At this flip rate labels say nothing: training on them and on their
complement must, on average, teach nothing."""


class Job(NamedTuple):
  """One contestant to be tuned in one arena.

  Attributes:
    flip_rate: injected.
    role: `contestant`, or a control: `clean` (best known labels), `unflipped`
      (flipped pairs left out), `leak`, `leak complement`; or what a protocol
      of its own calls it.
    contestant: what is trained.
    labels: on which labels.
    grid: with which tuning budget.
    with_oracle: see `bakeoff.tune`.
  """

  flip_rate: float
  role: str
  contestant: Contestant
  labels: Labels
  grid: Grid
  with_oracle: bool = True

  @property
  def name(self) -> str:
    """What the tables call it."""
    if self.role == 'contestant':
      return self.contestant.name
    return f'{self.contestant.name} ({self.role})'


def openings(
  contestants: Mapping[float, Sequence[Contestant]],
  arena: Arena,
  mesh: Mesh | None,
  threads: int,
) -> dict[str, tuple[float, float]]:
  """Loss -> its value before the first update, and what that must be.

  Compiles every step that the rounds will need, side by side.

  Raises:
    ValueError: they differ; see `opening_loss`.
  """
  competing = [c for row in contestants.values() for c in row]
  steps = {(c.loss, c.aggregate): c for c in reversed(competing)}
  found = ledger.in_threads(
    lambda c: opening_loss(c, arena, mesh), list(steps.values()), threads
  )
  names = [c._replace(assumed=None, estimator='').name for c in steps.values()]
  return dict(reversed(list(zip(names, found, strict=True))))


def jobs_of(
  arena: Arena,
  contestants: Mapping[float, Sequence[Contestant]],
  baseline: Contestant,
  grid: Grid,
  noise: Noise,
  estimates: Estimates | None = None,
) -> Iterator[Job]:
  """Everything one seed trains: each flip rate's contestants and the controls.

  Args:
    arena: of the seed.
    contestants: flip rate -> who competes there.
    baseline: whose controls are trained.
    grid: everybody's tuning budget.
    noise: what flips labels.
    estimates: what contestants with an estimator assume.

  Raises:
    ValueError: a loss that is not defined at an estimate.
  """
  for flip_rate, competing in contestants.items():
    labels = noisy_labels(arena, noise, flip_rate)
    for contestant in competing:
      if contestant.estimator:
        rate = estimates[arena.seed, flip_rate].rate
        contestant = contestant._replace(assumed=rate)
        check_contestant(contestant)
      # What noisy selection costs is told of the baseline alone.
      is_baseline = _uncorrected(contestant) == baseline
      yield Job(flip_rate, 'contestant', contestant, labels, grid, is_baseline)
    if labels.train_flipped.any():
      alone = labels._replace(
        train_weight=labels.train_weight * ~labels.train_flipped
      )
      yield Job(flip_rate, 'unflipped', baseline, alone, grid)
      yield Job(flip_rate, 'clean', baseline, best_labels(arena), grid)
  fixed = Grid(grid.learning_rates[:1], grid.stops[-1:])
  coin = noisy_labels(arena, EXACT_FLIPS, LEAK_RATE)
  yield Job(LEAK_RATE, 'leak', baseline, coin, fixed)
  yield Job(LEAK_RATE, 'leak complement', baseline, complement(coin), fixed)


class Carrying(NamedTuple):
  """How the cells of a run are carried out; no result depends on it.

  Attributes:
    directory: of the run.
    threads: cells trained at a time.
    mesh: of the devices; None is one device.
    save_interval: steps between saves of a cell in progress; 0 saves it only
      when asked to stop.
    writer: of training metrics, every `log_interval` steps.
    log_interval: steps.
    should_stop: asked after every step.
    on_done: (key, row, number done, number of all), as cells finish.
    provenance: what is known of the run; where it is given, the policy that
      every cell selects is saved with it, in `policies/`.
  """

  directory: pathlib.Path
  threads: int
  mesh: Mesh | None
  save_interval: int
  writer: writers.Writer
  log_interval: int
  should_stop: Callable[[int], bool]
  on_done: Callable[[str, dict[str, Any], int, int], None]
  provenance: Provenance | None = None


def train_cells(
  arenas: Sequence[Arena],
  contestants: Mapping[float, Sequence[Contestant]],
  baseline: Contestant,
  grid: Grid,
  noise: Noise,
  carrying: Carrying,
  *,
  with_pairs: bool,
  estimates: Estimates | None = None,
) -> list[dict[str, Any]]:
  """Trains what is not in the ledger of the run; cells that coincide, once.

  Args:
    arenas: one per seed.
    contestants, baseline, grid, noise, estimates: see `jobs_of`.
    carrying: how.
    with_pairs: see `bakeoff.row_of`.

  Returns:
    One cell per arena and job; see `standings`.
  """
  jobs = [
    (arena, job)
    for arena in arenas
    for job in jobs_of(arena, contestants, baseline, grid, noise, estimates)
  ]
  return train_jobs(jobs, carrying, with_pairs=with_pairs)


def train_jobs(
  jobs: Sequence[tuple[Arena, Job]], carrying: Carrying, *, with_pairs: bool
) -> list[dict[str, Any]]:
  """Trains what is not in the ledger of the run; jobs that coincide, once.

  Args:
    jobs: each with the arena it is trained in.
    carrying: how.
    with_pairs: see `bakeoff.row_of`.

  Returns:
    One cell per job, in order.
  """
  keys = [fingerprint(arena, job) for arena, job in jobs]
  work = {
    key: functools.partial(_train, arena, job, key, carrying, with_pairs)
    for key, (arena, job) in zip(keys, jobs, strict=True)
  }
  rows = ledger.carry_out(
    work,
    carrying.directory / 'eval' / 'outcomes.jsonl',
    threads=carrying.threads,
    on_done=carrying.on_done,
  )
  return [
    cell(arena.seed, job, rows[key])
    for key, (arena, job) in zip(keys, jobs, strict=True)
  ]


def write_cells(directory: pathlib.Path, cells: Sequence[Mapping]) -> None:
  """Writes `eval/cells.jsonl`, what the tables of a run are made from."""
  lines = ''.join(json.dumps(c) + '\n' for c in cells)
  storage.write_text(directory / 'eval' / 'cells.jsonl', lines)


def cell(seed: int, job: Job, row: Mapping[str, Any]) -> dict[str, Any]:
  """What a job came to, as the tables read it."""
  return {
    'seed': seed,
    'flip_rate': job.flip_rate,
    'role': job.role,
    'name': job.name,
    'loss': job.contestant.loss,
    'assumed': job.contestant.assumed,
    'estimator': job.contestant.estimator,
    **row,
  }


def _train(
  arena: Arena, job: Job, key: str, carrying: Carrying, with_pairs: bool
) -> dict[str, Any]:
  label = f'seed {arena.seed}  flips {job.flip_rate:g}  {job.name}'
  place = carrying.directory / 'checkpoints' / key[:16]

  def keep(stop: Stop, trained: PyTree) -> None:
    name = f'{re.sub("[^A-Za-z0-9@.]+", "_", label)}_{key[:8]}'
    keep_policy(
      carrying.directory / 'policies' / name,
      arena.origin,
      whole(arena, trained),
      provenance_of(carrying.provenance, arena, label, job.contestant, stop),
      lora=arena.lora,
      adapters=trained,
    )

  outcome = tune(
    job.contestant,
    arena,
    job.labels,
    job.grid,
    with_oracle=job.with_oracle,
    keep=keep if carrying.provenance else None,
    mesh=carrying.mesh,
    checkpoints=CellCheckpoints(place, job.grid.stops[-1]),
    save_interval=carrying.save_interval,
    writer=writers.tagged_writer(carrying.writer, {'cell': label}),
    log_interval=carrying.log_interval,
    should_stop=carrying.should_stop,
  )
  return {'label': label, **row_of(outcome, with_pairs=with_pairs)}


def fingerprint(arena: Arena, job: Job) -> str:
  """Equal for jobs of a run that train and select the very same thing."""
  contestant = _uncorrected(job.contestant)._replace(estimator='')
  # Two policies may meet on the same pairs: their params tell them apart.
  shapes = jax.tree.map(np.shape, arena.start)
  what = (arena.seed, shapes, contestant, job.grid)
  digest = hashlib.sha256(repr(what).encode())
  for name, array in job.labels._asdict().items():
    if array is not None:
      digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()


def _uncorrected(contestant: Contestant) -> Contestant:
  """The same loss by its plain name, where it assumes a flip rate of 0."""
  if contestant.assumed == 0 and contestant.loss in AT_ZERO:
    return contestant._replace(
      loss=AT_ZERO[contestant.loss], assumed=None, estimator=''
    )
  return contestant
