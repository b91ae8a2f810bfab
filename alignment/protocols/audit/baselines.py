"""What labels look like before any model reads them: length, place, repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from alignment.data.label_answers import ids_of
from alignment.metrics.intervals import Estimate
from alignment.metrics.shares import clustered_wilson
from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.estimate import (
  RateEstimate,
  bounded,
  refused,
)
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.reading import Reading
from alignment.protocols.audit.subject import Subject, length_ratio

ONE_ORDER = (
  'The texts of a prompt have one true order, and each label errs '
  'independently at one rate below 1/2.'
)
INDEPENDENT_REPEATS = (
  'Rows of equal texts are labels of the same thing, made apart and not '
  'copied, and err independently at one rate.'
)
CLOSE_PAIRS = 'a lower bound where close pairs err more often'
FEWEST_TRIANGLES, FEWEST_REPEATS = 30, 20


POSITION = 'the text shown first is preferred'
FOLLOWS = 0.75


class Baseline(NamedTuple):
  """A share that a reader should know beside every rate.

  Attributes:
    name: what is counted.
    share: with an interval over groups; None where it is not known.
    chance: what it would be if nothing were going on; None: there is no such
      number.
    note: why it is not known, or what it means.
  """

  name: str
  share: Estimate | None
  chance: float | None
  note: str


class Repeats(NamedTuple):
  """Rows about the same texts.

  Attributes:
    rows: rows whose texts another row has, too.
    pairs: how many different texts, or pairs, these are.
    contradicted: of which labels at hand differ.
    examples: up to ten tuples of row numbers that contradict each other.
    triangles: sets of three texts, each two of which were compared.
    cycles: of these, a beats b beats c beats a.
  """

  rows: int
  pairs: int
  contradicted: int
  examples: tuple[tuple[int, ...], ...]
  triangles: int
  cycles: int


def baselines(subject: Subject, reading: Reading | None) -> list[Baseline]:
  """Length-only, position, commonest class, and the text model, in shares."""
  evidence = subject.evidence
  own = ~subject.is_tie
  rows = []
  if subject.is_pairs:
    ratio = length_ratio(subject.texts)
    used = own & (ratio != 0)
    longer = (ratio < 0) == evidence.label
    rows.append(
      Baseline(
        'the longer text is labelled better',
        _share(longer, used, evidence.group),
        0.5,
        'length alone predicts labels this well (or 1 minus it)',
      )
    )
    rows.append(_position(subject))
  else:
    commonest = np.bincount(evidence.label).argmax()
    rows.append(
      Baseline(
        f'the commonest class, {subject.classes[commonest]!r}',
        _share(evidence.label == commonest, own, evidence.group),
        None,
        'what guessing this class for every row scores',
      )
    )
  if reading is None:
    rows.append(
      Baseline(
        'a linear text model', None, None, 'too few rows, groups or texts'
      )
    )
  else:
    right = reading.probs.argmax(axis=1) == evidence.label
    rows.append(
      Baseline(
        'a linear text model agrees with the labels',
        _share(right, own, evidence.group),
        0.5 if subject.is_pairs else None,
        'out of fold, no row of the group seen',
      )
    )
  return rows


def follows_place(rows: Sequence[Baseline]) -> str:
  """That votes follow the place where a text is shown; '' where they do not."""
  share = next((b.share for b in rows if b.name == POSITION), None)
  if share is None or share.low is None:
    return ''
  if 1 - FOLLOWS <= share.high and share.low <= FOLLOWS:
    return ''
  return (
    f'{share.value:.3f} of votes go to the text shown first, so that votes '
    'agree by habit if a pair is always shown in one order'
  )


def repeats(subject: Subject) -> Repeats:
  """Rows that repeat texts, contradictions among them, and cycles."""
  key, _ = _pair_keys(subject)
  label = _turned_labels(subject)
  times = np.bincount(key)
  repeated = times[key] > 1
  ones = np.bincount(key, label == label[_first_of(key)])
  contradicted = ones < times
  examples = [
    tuple(np.flatnonzero(key == k).tolist())
    for k in np.flatnonzero(contradicted)[:10]
  ]
  triangles, cycles, _ = _triangles(subject)
  return Repeats(
    int(repeated.sum()),
    int(np.sum(times > 1)),
    int(contradicted.sum()),
    tuple(examples),
    int(triangles.sum()),
    int(cycles.sum()),
  )


def repeated_evidence(subject: Subject) -> Evidence | None:
  """Rows that repeat texts as votes on them; None where there are too few."""
  key, _ = _pair_keys(subject)
  label, times = _turned_labels(subject), np.bincount(key)
  several = np.flatnonzero(times > 1)
  if len(several) < FEWEST_REPEATS:
    return None
  rows = np.flatnonzero(times[key] > 1)
  place = np.full(len(times), -1)
  place[several] = np.arange(len(several))
  order = rows[np.argsort(key[rows], kind='stable')]
  task = place[key[order]]
  starts = np.flatnonzero(np.diff(task, prepend=-1))
  # Nobody signed: the k-th row of a pair counts as worker k.
  worker = np.arange(len(task)) - np.repeat(starts, times[several])
  votes = VoteTable(
    task,
    worker,
    label[order],
    len(several),
    int(worker.max()) + 1,
    subject.evidence.num_classes,
  )
  return Evidence(
    label=label[order][starts],
    num_classes=subject.evidence.num_classes,
    group=subject.evidence.group[order][starts],
    group_name=subject.evidence.group_name,
    votes=votes,
  )


def triangle_rate(subject: Subject) -> RateEstimate:
  """Flip rate of the labels at hand from cycles among three texts.

  If a, b, c have a true order and labels flip independently at rate ε, the
  three labels form a cycle with probability ε(1 − ε)² + ε²(1 − ε) = ε(1 − ε):
  the one between the ends flips alone, or the other two both do. So single
  labels do tell a rate where texts recur. ¼ of triangles are cycles if labels
  mean nothing. The interval is that of the share of cycles, over groups.
  Where close pairs err more often, as with people, the pair between the ends
  errs least and cycles are rarer: the number is then a lower bound.
  """
  name = 'triangles'
  triangles, cycles, group = _triangles(subject)
  total = int(triangles.sum())
  if total < FEWEST_TRIANGLES:
    return refused(
      name,
      ONE_ORDER,
      f'{total} sets of three texts of a prompt were compared each with each, '
      f'fewer than {FEWEST_TRIANGLES}; label further pairs of the same texts',
    )
  found = clustered_wilson(cycles, triangles, group)
  rate = _rate_of_cycles(found.value)
  ends = (None, None)
  if found.low is not None:
    ends = tuple(_rate_of_cycles(end) for end in (found.low, found.high))
  return bounded(
    name,
    ONE_ORDER,
    rate,
    *ends,
    count=found.count,
    unit=subject.evidence.group_name,
    flags=(f'{total} triangles', CLOSE_PAIRS),
  )


def _rate_of_cycles(share: float) -> float:
  return float((1 - np.sqrt(max(1 - 4 * share, 0.0))) / 2)


def _share(
  hits: np.ndarray, used: np.ndarray, group: np.ndarray
) -> Estimate | None:
  if not used.any():
    return None
  return clustered_wilson(hits & used, used, group)


def _position(subject: Subject) -> Baseline:
  name, votes = POSITION, subject.evidence.votes
  known = subject.is_left != 0
  if votes is None or not known.any():
    return Baseline(
      name, None, 0.5, 'not known: the data do not say which was shown first'
    )
  left = (votes.label == 0) == (subject.is_left > 0)
  return Baseline(
    name,
    _share(left, known, subject.evidence.group[votes.task]),
    0.5,
    'over votes; far from 1/2 the place decides, unless places were not drawn',
  )


def _pair_keys(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
  """Ids of (prompt, texts) in either order, and which rows are turned."""
  texts = subject.texts
  if not subject.is_pairs:
    # Rows without text are nobody's repeat, and one text may stand under
    # several questions, which is what groups of a table often are.
    group = subject.evidence.group
    keys = ((group[i], t[0] or i) for i, t in enumerate(texts))
    return ids_of(keys)[0], np.zeros(len(texts), bool)
  turned = np.array([t[1] > t[2] for t in texts])
  keys = ((t[0], *sorted(t[1:])) for t in texts)
  return ids_of(keys)[0], turned


def _turned_labels(subject: Subject) -> np.ndarray:
  """Labels as if the texts of every pair stood in the order of the alphabet."""
  _, turned = _pair_keys(subject)
  return np.where(turned, 1 - subject.evidence.label, subject.evidence.label)


def _first_of(key: np.ndarray) -> np.ndarray:
  """`[B]` the first row of the same key."""
  _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
  return first[inverse]


def _triangles(
  subject: Subject,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Triangles and cycles of every text, a third each, and its group."""
  if not subject.is_pairs:
    return np.zeros(1), np.zeros(1), np.zeros(1, int)
  texts, label = subject.texts, subject.evidence.label
  own = np.flatnonzero(~subject.is_tie)
  nodes, names = ids_of(
    (texts[i][0], texts[i][part]) for part in (1, 2) for i in own
  )
  first, second = nodes[: len(own)], nodes[len(own) :]
  winner = np.where(label[own] == 0, first, second)
  loser = first + second - winner
  size = len(names)
  wins = sparse.csr_array(
    (np.ones(len(own)), (winner, loser)), shape=(size, size)
  )
  # Of a pair labelled both ways as often, nobody won.
  beats = sparse.csr_array(wins - wins.T > 0, dtype=np.float64)
  either = beats + beats.T
  cycles = ((beats @ beats) * beats.T).sum(axis=1) / 3
  triangles = ((either @ either) * either).sum(axis=1) / 6
  group = np.zeros(size, int)
  group[first] = subject.evidence.group[own]
  group[second] = subject.evidence.group[own]
  return triangles, cycles, group
