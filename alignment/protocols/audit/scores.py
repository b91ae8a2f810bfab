"""How well detectors find wrong labels, where the data say which are wrong."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from alignment.metrics.detection import detection
from alignment.metrics.intervals import Estimate
from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection import catalogue
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.rates import FEWEST_ROWS, Rates
from alignment.protocols.audit.reading import clusters_of, features_of, read
from alignment.protocols.audit.subject import Subject


class Score(NamedTuple):
  """How well a detector finds wrong labels.

  Attributes:
    detector: its name.
    auroc, precision: with intervals over groups; precision among the first
      rate · B rows.
    share: of labels that are wrong, what a random detector's precision is.
    rows: judged.
    truth: by what.
  """

  detector: str
  auroc: Estimate
  precision: Estimate | None
  share: float
  rows: int
  truth: str


def detector_scores(
  evidence: Evidence, rates: Rates, rng: np.random.Generator
) -> list[Score]:
  """Detectors against known true classes, on the rows that have one."""
  gold = evidence.clean_label
  if gold is None or np.sum(gold >= 0) < FEWEST_ROWS:
    return []
  # Detectors must not see what they are judged by.
  blind = dataclasses.replace(evidence, clean_label=None)
  known = np.flatnonzero(gold >= 0)
  wrong = evidence.label[known] != gold[known]
  # The rate that counting gives, for want of one that does not count.
  rate = float(np.mean(wrong))
  found = rates.of_labels
  if found is not None and found.estimator != 'anchors':
    rate = found.rate
  return _scores(blind, known, wrong, rate, 'the known true class', rng)


def held_out_votes(
  subject: Subject, rates: Rates, rng: np.random.Generator
) -> list[Score]:
  """What the text alone would have found, had every row a single vote.

  A vote is drawn as the label of every row with three or more, a model is
  cross-validated on these labels, and detectors that read no votes are judged
  by the majority of the other votes, ties left out. That majority errs as
  well, so that a perfect detector would not reach 1.
  """
  evidence = subject.evidence
  votes = evidence.votes
  if votes is None or rates.of_votes is None:
    return []
  label, others = _draw_vote(votes, rng)
  counts = others.counts
  leads = np.sort(counts, axis=1)
  rows = np.flatnonzero(
    (counts.sum(axis=1) >= 2) & (leads[:, -1] > leads[:, -2])
  )
  features = features_of(subject)
  if features is None or len(rows) < 10 * FEWEST_ROWS:
    return []
  cluster = clusters_of(evidence.group, subject.texts)
  reading = read(
    features[rows],
    label[rows],
    np.unique(cluster[rows], return_inverse=True)[1],
    num_classes=evidence.num_classes,
    rng=rng,
  )
  if reading is None:
    return []
  single = dataclasses.replace(
    evidence.take(rows),
    label=label[rows],
    probs=reading.probs,
    votes=None,
    clean_label=None,
  )
  wrong = label[rows] != counts[rows].argmax(axis=1)
  return _scores(
    single,
    np.arange(len(rows)),
    wrong,
    rates.of_votes.rate,
    'the majority of the other votes',
    rng,
  )


def _scores(
  evidence: Evidence,
  rows: np.ndarray,
  wrong: np.ndarray,
  rate: float,
  truth: str,
  rng: np.random.Generator,
) -> list[Score]:
  if wrong.all() or not wrong.any():
    return []
  k = int(np.clip(round(rate * len(rows)), 1, len(rows)))
  scores = []
  for name, detect in catalogue.DETECTORS.items():
    if catalogue.missing(name, evidence) or name in catalogue.SAME_ORDER[1:]:
      continue
    found = detection(
      detect(evidence)[rows],
      wrong,
      evidence.group[rows],
      rng,
      k=k,
      resamples=500,
    )
    scores.append(
      Score(
        name,
        found['auroc'],
        found['precision_at_k'],
        float(wrong.mean()),
        len(rows),
        truth,
      )
    )
  return sorted(scores, key=lambda s: -s.auroc.value)


def _draw_vote(
  votes: VoteTable, rng: np.random.Generator
) -> tuple[np.ndarray, VoteTable]:
  """One vote of every task as its label (0 where none), and the others."""
  order = np.lexsort((rng.random(len(votes)), votes.task))
  first = order[np.flatnonzero(np.diff(votes.task[order], prepend=-1))]
  label = np.zeros(votes.num_tasks, np.int32)
  label[votes.task[first]] = votes.label[first]
  rest = np.ones(len(votes), bool)
  rest[first] = False
  others = dataclasses.replace(
    votes,
    task=votes.task[rest],
    worker=votes.worker[rest],
    label=votes.label[rest],
  )
  return label, others
