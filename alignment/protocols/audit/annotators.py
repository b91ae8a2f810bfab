"""Who labels how well: from votes on common rows, or against the text model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment.metrics.intervals import Estimate
from alignment.metrics.shares import clustered_wilson
from alignment.noise.crowd.dependence import Dependence, dependence
from alignment.noise.crowd.fit import CrowdFit
from alignment.noise.crowd.reliabilities import Reliabilities, reliabilities
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.subject import Subject

FEWEST_LABELS, FEWEST_VOTES = 20, 10
VOTES_PER_CELL = 10
"""Votes a worker should have for every kind of error in a confusion matrix."""
MOST_WORKERS = 400
"""Above this many workers a test of every two of them is not made."""
FIRST_ALWAYS = 0.75
RESAMPLES = 200


class Annotator(NamedTuple):
  """One labeller.

  Attributes:
    name: of the labeller.
    labels: how many were given.
    skill: P(says the truth) with an interval; or agreement with the model.
    says_first: share of votes for the text shown first; None unknown.
    flags: what a reader must see beside the number.
  """

  name: str
  labels: int
  skill: Estimate
  says_first: Estimate | None
  flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Annotators:
  """The labellers of a set.

  Attributes:
    ranked: by the upper end of their interval, the surest of the worst first;
      those with too few labels to say anything come last.
    skill_is: what `skill` means here.
    model: name of the annotator model; '' where there are no common rows.
    fit: of it, to all votes; None likewise, or where votes are not signed.
    mean_skill: P(a vote says the truth); None likewise.
    dependence: whether errors are independent; None where that is not tested.
    note: why nothing, or not more, is known.
  """

  ranked: Sequence[Annotator] = ()
  skill_is: str = ''
  model: str = ''
  fit: CrowdFit | None = None
  mean_skill: Estimate | None = None
  dependence: Dependence | None = None
  note: str = ''


def find_annotators(
  subject: Subject, evidence: Evidence, rng: np.random.Generator
) -> Annotators:
  """Fits an annotator model, or compares annotators with the text model.

  Of pairs, in an order that carries no meaning, one skill per worker
  (`one_coin`); of classes, where votes are many, a confusion matrix each
  (`dawid_skene`). Where each
  row has a single, signed label, annotators are compared by how often the text
  model, which saw no row of the group, agrees: low agreement may also mean hard
  rows.

  Args:
    subject: what is audited.
    evidence: the subject's, with probabilities where there is a model.
    rng: numpy generator.
  """
  votes = evidence.votes
  if votes is not None and votes.counts.sum(axis=1).max(initial=0) > 1:
    return _of_votes(subject, evidence, rng)
  if evidence.annotator_id is not None and evidence.probs is not None:
    return _against_model(subject, evidence)
  return Annotators(
    note='The data do not say who labelled what, or no row has two votes.'
  )


def _of_votes(
  subject: Subject, evidence: Evidence, rng: np.random.Generator
) -> Annotators:
  votes = evidence.votes
  if len(np.unique(votes.label)) < 2:
    return Annotators(note='All votes say the same.')
  if not subject.workers:
    return Annotators(note='Votes are not signed, so nobody can be ranked.')
  model = _model(subject)
  settings = {'model': model, 'group': evidence.group, 'resamples': RESAMPLES}
  found = reliabilities(votes, rng, min_votes=FEWEST_VOTES, **settings)
  tested, note = None, ''
  if votes.num_workers > MOST_WORKERS:
    note = f'Independence is not tested, with more than {MOST_WORKERS} workers.'
  else:
    try:
      tested = dependence(votes, rng, **settings)
    except ValueError as error:
      note = f'Independence is not tested: {error}.'
  return Annotators(
    ranked=_worst_first(_judged(subject, found, tested)),
    skill_is='P(says the truth)',
    model=model,
    fit=found.fit,
    mean_skill=found.mean,
    dependence=tested,
    note=note,
  )


def _model(subject: Subject) -> str:
  """A confusion matrix per worker where there are votes enough to fill it."""
  votes = subject.evidence.votes
  cells = votes.num_classes * (votes.num_classes - 1)
  per_worker = len(votes) / len(np.unique(votes.worker))
  if subject.is_pairs or per_worker < VOTES_PER_CELL * cells:
    return 'one_coin'
  return 'dawid_skene'


def _judged(
  subject: Subject, found: Reliabilities, tested: Dependence | None
) -> list[Annotator]:
  """Every worker who voted, with remarks."""
  correlated = _correlated(tested, len(found.num_votes))
  judged = []
  for worker in np.flatnonzero(found.num_votes):
    count = int(found.num_votes[worker])
    flags = list(found.flags[worker])
    first = None
    # Of a few votes nothing can be said, and crowds have thousands of workers.
    if count >= FEWEST_VOTES:
      first = _says_first(subject, worker)
    if first is not None and first.low is not None:
      if first.low > FIRST_ALWAYS:
        flags.append('mostly the text shown first')
      if first.high < 1 - FIRST_ALWAYS:
        flags.append('mostly the text shown second')
    if correlated[worker]:
      flags.append(f'agrees too often with {correlated[worker]} others')
    ends = (found.skill[worker], found.low[worker], found.high[worker])
    judged.append(
      Annotator(
        subject.workers[worker],
        count,
        Estimate(*map(float, ends), count),
        first,
        tuple(flags),
      )
    )
  return judged


def _against_model(subject: Subject, evidence: Evidence) -> Annotators:
  agrees = evidence.probs.argmax(axis=1) == evidence.label
  annotator = evidence.annotator_id
  ranked = []
  for a in np.unique(annotator[annotator >= 0]):
    rows = np.flatnonzero(annotator == a)
    skill = clustered_wilson(
      agrees[rows], np.ones(len(rows)), evidence.group[rows]
    )
    few = len(rows) < FEWEST_LABELS
    said = evidence.label[rows]
    flags = [f'fewer than {FEWEST_LABELS} labels'] if few else []
    if not few and np.all(said == said[0]) and not subject.is_pairs:
      flags.append('one label only')
    ranked.append(
      Annotator(subject.annotators[a], len(rows), skill, None, tuple(flags))
    )
  return Annotators(
    ranked=_worst_first(ranked),
    skill_is='agreement with the text model, not skill: hard rows agree less',
    note='One label a row: skill itself cannot be known.',
  )


def _correlated(tested: Dependence | None, num_workers: int) -> np.ndarray:
  """`[A]`: with how many others each agrees more than skills explain."""
  if tested is None or tested.remark:
    return np.zeros(num_workers, int)
  pairs = np.flatnonzero(tested.correlated)
  ends = np.concatenate([tested.first[pairs], tested.second[pairs]])
  return np.bincount(ends, minlength=num_workers)


def _says_first(subject: Subject, worker: int) -> Estimate | None:
  votes = subject.evidence.votes
  mine = (votes.worker == worker) & (subject.is_left != 0)
  if not mine.any():
    return None
  first = (votes.label[mine] == 0) == (subject.is_left[mine] > 0)
  group = subject.evidence.group[votes.task[mine]]
  return clustered_wilson(first, np.ones(len(first)), group)


def _worst_first(found: Sequence[Annotator]) -> list[Annotator]:
  """Those of whom something is known by upper end, then the rest."""
  return sorted(
    found,
    key=lambda a: (
      any(f.startswith('fewer than') for f in a.flags),
      1.0 if a.skill.high is None else a.skill.high,
    ),
  )
