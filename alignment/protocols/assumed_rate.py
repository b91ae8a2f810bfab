"""The flip rate that losses assume, estimated from what training labels allow.

Single labels do not identify it. On the embedded task a share of the training
pairs is labelled again, by draws of their own at the very rates of the pair,
or a few pairs are checked; on data with votes there are the votes of the
training split, and injected noise falls on every one of them. Clean labels are
read for checked pairs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from alignment.data.layout import Group
from alignment.data.records import Vote
from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import count_of
from alignment.noise.corruption.catalogue import inputs
from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.catalogue import ESTIMATORS, estimate_all
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.evidence import Evidence
from alignment.noise.labels import flip, says_something
from alignment.protocols.arena import Arena, Pairs
from alignment.protocols.labelling import Noise, at_hand, corrupted
from alignment.protocols.records_source import Source
from alignment.types import NoisyLabels

_REHEARSED = 0.2
RELABELLED, RELABELS = 0.5, 4
"""On the embedded task, where nothing else is asked for. Five labels on half of
its 1000 pairs cannot tell a rate of .4 from ½ in one of 200 seeds, two labels
on all of them in one of nine."""


class Plan(NamedTuple):
  """How flip rates are estimated.

  Attributes:
    estimator: key of `ESTIMATORS`.
    relabelled: share of the training pairs that are labelled again, in [0, 1].
    relabels: how often each of them is, ≥ 1.
    anchors: share of the training pairs whose true label is checked.
    unit: what a cluster of pairs is called.
  """

  estimator: str
  relabelled: float = 0.0
  relabels: int = RELABELS
  anchors: float = 0.0
  unit: str = 'prompt'


Estimates = Mapping[tuple[int, float], RateEstimate]
"""(seed, flip rate injected) -> what its training labels say of it."""


def plan_of(given: Mapping[str, Any], source: Source | None) -> Plan | None:
  """The plan of a run, tried on made-up pairs; None where none is asked for.

  Args:
    given: flag -> value; None where it was not given.
    source: of real preferences; None on the embedded task.

  Raises:
    ValueError: naming flag and value, or what the estimator refuses.
  """
  if not given['estimate_flip_rate']:
    return None
  anchors, relabelled = given['anchors'] or 0.0, given['relabelled']
  if relabelled is None:
    relabelled = 0.0 if source or anchors else RELABELLED
  if given['relabels'] and not relabelled:
    raise ValueError(
      f'--relabels={given["relabels"]}: not used where no pair is --relabelled'
    )
  has_votes = source is not None and any(
    record.votes for record in source.records
  )
  if anchors and source and (has_votes or source.flip_rate is None):
    raise ValueError(
      f'--anchors={anchors:g}: needs the truth of every pair, a column '
      'is_flipped or clean_label'
    )
  plan = Plan(
    given['estimate_flip_rate'],
    relabelled,
    given['relabels'] or RELABELS,
    anchors,
    source.cluster if source else 'prompt',
  )
  _rehearse(plan, given['num_pairs'] or 1000, has_votes=has_votes)
  return plan


def estimate_rates(
  arenas: Sequence[Arena],
  noise: Noise,
  flip_rates: Sequence[float],
  plan: Plan,
) -> Estimates:
  """Every arena's estimate at every injected rate.

  Raises:
    ValueError: no number in [0, ½), in the words of the estimator.
  """
  found = {}
  for arena in arenas:
    for flip_rate in flip_rates:
      labels, _ = corrupted(arena, noise, flip_rate)
      evidence = gather(arena.train.pairs, labels, noise, plan, arena.seed)
      where = f'seed {arena.seed}, flip rate {flip_rate:g}: '
      found[arena.seed, flip_rate] = _estimated(
        evidence, plan, arena.seed, where
      )
  return found


def gather(
  pairs: Pairs, labels: NoisyLabels, noise: Noise, plan: Plan, seed: int
) -> Evidence:
  """What may be known of the training labels.

  Args:
    pairs: the training pairs.
    labels: theirs, with noise.
    noise: what gave them.
    plan: what is labelled again or checked.
    seed: of the arena; which pairs are, and what is said of them.

  Returns:
    Labels and votes of the pairs, 0 where completion 0 is said to be better;
    pairs that the labeller skipped or tied have no votes.
  """
  key = jax.random.fold_in(jax.random.key(seed), 0x22)
  if pairs.votes:
    votes = _crowd(key, pairs, labels, noise)
  else:
    votes = _relabelled(key, pairs, labels, plan)
  checked = _some(jax.random.fold_in(key, 1), len(pairs), plan.anchors)
  truth = np.where(pairs.first_is_better, 0, 1)
  cluster = np.unique(pairs.cluster, return_inverse=True)[1]
  return Evidence(
    label=np.where(labels.label, 0, 1),
    num_classes=2,
    group=cluster,
    group_name=f'{plan.unit}s',
    annotator_id=np.array([g.annotator_id for g in pairs.groups]),
    votes=votes,
    clean_label=np.where(checked, truth, -1) if plan.anchors else None,
  )


def _rehearse(plan: Plan, num_pairs: int, *, has_votes: bool) -> None:
  """Refuses a plan that comes to no number on made-up pairs."""
  if plan.estimator not in ESTIMATORS:
    raise ValueError(
      f'--estimate_flip_rate={plan.estimator}: must be one of '
      f'{", ".join(ESTIMATORS)}'
    )
  rng = np.random.default_rng(0)
  token = np.ones(1, np.int32)
  sides = rng.integers(0, 2, num_pairs).tolist()
  pairs = Pairs(
    groups=[
      Group(token, (token, token), i, chosen=side, rejected=1 - side)
      for i, side in enumerate(sides)
    ],
    observed_flip=np.zeros(num_pairs, bool),
    cluster=np.arange(num_pairs),
    gold_margin=np.full(num_pairs, np.nan),
    vote_share=np.ones(num_pairs),
    vote_count=np.ones(num_pairs),
    votes=[tuple(Vote(w, 1 - 2 * side) for w in range(3)) for side in sides]
    if has_votes
    else (),
  )
  labels = flip(at_hand(pairs), rng.random(num_pairs), _REHEARSED)
  evidence = gather(pairs, labels, Noise('symmetric'), plan, seed=0)
  _estimated(evidence, plan, 0, '')


def _estimated(
  evidence: Evidence, plan: Plan, seed: int, where: str
) -> RateEstimate:
  rng = np.random.default_rng([seed, 0xE57])
  (found,) = estimate_all(evidence, rng, [plan.estimator])
  problem = found.refusal
  if not problem and found.rate is None:
    problem = (
      f'gives only the set [{found.low:.3f}, {found.high:.3f}], and a loss '
      'assumes one number'
    )
  elif not problem and found.rate >= 0.5:
    problem = f'gives {found.rate:.3f}, and losses assume less than 0.5'
  if problem:
    raise ValueError(f'--estimate_flip_rate={plan.estimator}: {where}{problem}')
  return found


def _relabelled(
  key: jax.Array, pairs: Pairs, labels: NoisyLabels, plan: Plan
) -> VoteTable | None:
  """The label at hand and `relabels` new ones of the pairs chosen."""
  if not plan.relabelled:
    return None
  chosen = _some(key, len(pairs), plan.relabelled) & says_something(labels)
  rows = np.flatnonzero(chosen)
  rounds = [labels.label[rows]]
  for worker in range(1, plan.relabels + 1):
    own = jax.random.fold_in(key, 1 + worker)
    again = flip(
      at_hand(pairs)[rows],
      draws.uniforms(own, draws.FLIPS, rows),
      labels.flip_rate[rows],
    )
    rounds.append(again.label)
  said = np.stack(rounds, axis=1)
  return _table(
    np.repeat(rows, said.shape[1]),
    np.tile(np.arange(said.shape[1]), len(rows)),
    said.ravel(),
    len(pairs),
  )


def _crowd(
  key: jax.Array, pairs: Pairs, labels: NoisyLabels, noise: Noise
) -> VoteTable:
  """Every vote, each with injected noise of its own; the one at hand as it is
  trained on."""
  task = np.repeat(np.arange(len(pairs)), [len(v) for v in pairs.votes])
  votes = [vote for of_pair in pairs.votes for vote in of_pair]
  worker = np.array([vote.worker for vote in votes])
  clean = np.array([vote.value > 0 for vote in votes], bool)
  rate = np.asarray(labels.flip_rate, float)[task]
  is_at_hand = np.diff(task, prepend=-1) > 0
  if 'annotator_id' in inputs(noise.name):
    # The rate is the worker's, not the pair's.
    mean = labels.flip_rate.mean()
    own = np.full(worker.max() + 1, mean)
    own[worker[is_at_hand]] = rate[is_at_hand]
    rate = np.where(worker < 0, mean, own[worker])
  uniform = draws.uniforms(key, draws.FLIPS, np.arange(len(votes)))
  said = flip(clean, uniform, rate).label
  said[is_at_hand] = labels.label[task[is_at_hand]]
  counted = says_something(labels)[task]
  # Nobody knows that two unknown workers are one.
  unknown = np.flatnonzero(worker < 0)
  worker[unknown] = worker.max() + 1 + np.arange(len(unknown))
  return _table(task[counted], worker[counted], said[counted], len(pairs))


def _table(
  task: np.ndarray, worker: np.ndarray, said: np.ndarray, num_tasks: int
) -> VoteTable:
  worker = np.unique(worker, return_inverse=True)[1]
  return VoteTable(
    task=task,
    worker=worker,
    label=np.where(said, 0, 1),
    num_tasks=num_tasks,
    num_workers=int(worker.max(initial=0)) + 1,
    num_classes=2,
  )


def _some(key: jax.Array, size: int, share: float) -> np.ndarray:
  """`[size]` bool, True at exactly ⌊share · size⌋ places."""
  chosen = np.zeros(size, bool)
  uniform = draws.uniforms(key, draws.FLIPS, np.arange(size))
  chosen[np.argsort(uniform)[: count_of(share, size)]] = True
  return chosen
