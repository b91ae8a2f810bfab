"""Pairs that several workers judged: one vote to train on, others to test."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignment.data.readers import json_rows
from alignment.data.records import (
  DataError,
  Preference,
  Report,
  Vote,
  VotedPair,
  refuse_empty,
)

ARGUMENTS = 'arguments.jsonl.gz'
PAIRS = 'pairs_votes.jsonl.gz'
VALUES = {'a1': 1, 'a2': -1, 'equal': 0}


def read_votes(
  folder: str | os.PathLike, *, strict: bool = False
) -> tuple[list[VotedPair], Report]:
  """Reads a folder of texts and of the votes on their pairs.

  `arguments.jsonl.gz` holds {id, text, stance}, `pairs_votes.jsonl.gz` holds
  {title, arg1, arg2, votes: [{worker, value}]} with value one of 'a1', 'a2',
  'equal'. The prompt is the title and, where it is known, the stance; the group
  is the title.

  Args:
    folder: holds the two files.
    strict: raise where a pair would be dropped (two equal texts, no vote).

  Returns:
    The pairs in file order (`index` is the 0-based row) and the report.

  Raises:
    DataError: names file, line, field and remedy.
  """
  folder = os.fspath(folder)
  try:
    texts = _read_texts(os.path.join(folder, ARGUMENTS))
    path = os.path.join(folder, PAIRS)
    report, pairs = Report(path), []
    for line, row in json_rows(path):
      report.read += 1
      pair = _voted_pair(row, texts, path, line)
      reason = _fault(pair)
      if reason and strict:
        raise DataError(
          reason.removeprefix('dropped, '),
          'Remove the row, or read with strict=False',
          path,
          line,
          'votes' if not pair.votes else 'arg2',
        )
      if reason:
        report.add(reason, line)
      else:
        pairs.append(pair)
  except OSError as error:
    raise DataError(
      f'cannot be read: {error.strerror or error}',
      f'Give a folder that holds {ARGUMENTS} and {PAIRS}',
      error.filename or folder,
    ) from error
  report.kept = len(pairs)
  refuse_empty(pairs, report)
  return pairs, report


def one_vote(
  pairs: Sequence[VotedPair], *, seed: int
) -> tuple[list[Preference], Report]:
  """Labels every pair by one of its votes, and keeps the others aside.

  A vote is drawn uniformly; 'equal' names no winner, so it is put back and
  another one drawn, that is: the label is uniform over the votes that name a
  winner. A pair that has none is dropped and counted. A pair's draw depends on
  (seed, index) only.

  Args:
    pairs: with their votes.
    seed: another seed, other labels.

  Returns:
    Preferences whose `annotator_id` is the worker drawn and whose `votes` are
    the others', seen from `chosen`; and a report that counts the redrawn.
  """
  report, records = Report('one vote per pair', read=len(pairs)), []
  for pair in pairs:
    order = np.random.default_rng([seed, pair.index]).permutation(
      len(pair.votes)
    )
    drawn = next((i for i in order if pair.votes[i].value), None)
    if drawn is None:
      report.add('dropped, no vote names a winner', pair.index)
      continue
    if drawn != order[0]:
      report.add("redrawn, the first vote was 'equal'", pair.index)
    vote = pair.votes[drawn]
    others = [v for i, v in enumerate(pair.votes) if i != drawn]
    records.append(_labelled(pair, vote.value, others, vote.worker, 1.0))
  report.kept = len(records)
  refuse_empty(records, report)
  return records, report


def majority(
  pairs: Sequence[VotedPair],
) -> tuple[list[Preference], Report]:
  """Labels every pair by the majority of its votes.

  'equal' abstains; a tie among the rest gives no label, and the pair is
  dropped and counted.

  Args:
    pairs: with their votes.

  Returns:
    Preferences whose `label_prob` is the winner's share of the votes that name
    one, and the report.
  """
  report, records = Report('majority of votes', read=len(pairs)), []
  for pair in pairs:
    named = [vote.value for vote in pair.votes if vote.value]
    lead = sum(named)
    if not lead:
      report.add('dropped, the votes tie', pair.index)
      continue
    share = (1 + abs(lead) / len(named)) / 2
    records.append(_labelled(pair, int(np.sign(lead)), (), -1, share))
  report.kept = len(records)
  refuse_empty(records, report)
  return records, report


def agreement(
  pairs: Sequence[VotedPair], first_scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """How often a model sides with a vote it has not seen.

  agreement[b] = mean over the votes of pair b that name a winner of
  [sign(first_scores[b]) = vote], ½ where the score is 0; a single vote drawn
  from the pair agrees with this probability.

  Args:
    pairs: B pairs that no label of which was trained on.
    first_scores: `[B]`, positive where the model prefers `first`.

  Returns:
    agreement `[B]` in [0, 1], 0 where no vote names a winner; and weight `[B]`,
    the number of votes that do. Weigh by it, or by [weight > 0], to average.
  """
  values, weights = [], []
  for pair, score in zip(pairs, np.asarray(first_scores), strict=True):
    named = np.asarray([v.value for v in pair.votes if v.value], np.float64)
    values.append((1 + np.sign(score) * named.mean()) / 2 if named.size else 0)
    weights.append(named.size)
  return np.asarray(values, np.float64), np.asarray(weights, np.int64)


@dataclasses.dataclass(frozen=True)
class Ceiling:
  """What no predictor can pass on these votes; 'equal' is left out.

  Attributes:
    num_pairs: pairs with at least one vote that names a winner.
    num_votes: votes that name a winner.
    equal_share: share of 'equal' among all votes.
    two_workers_three_way: P(two votes on a pair agree), 'equal' a third answer.
    two_workers: P(two votes agree), both naming a winner.
    flip_rate: ε that would explain `two_workers` = (1 − ε)² + ε² if all votes
      erred alike, (1 − √(2·two_workers − 1))/2; ½ below chance.
    majority_of_others: agreement of a vote with the majority of the other
      votes on its pair, ½ where they tie: reachable, so no more than the
      ceiling for a predictor that sees the pair's other votes.
    best: agreement of a vote with the majority it is itself part of. Any fixed
      answer per pair agrees at most so often with *these* votes.
  """

  num_pairs: int
  num_votes: int
  equal_share: float
  two_workers_three_way: float
  two_workers: float
  flip_rate: float
  majority_of_others: float
  best: float

  def __str__(self) -> str:
    return (
      f'ceiling on {self.num_pairs} pairs: any fixed answer per pair agrees '
      f'with at most {self.best:.3f} of the {self.num_votes} votes that name a '
      f'winner; the majority of the other votes with '
      f'{self.majority_of_others:.3f}, one other worker with '
      f'{self.two_workers:.3f} (flip rate {self.flip_rate:.3f} if all err '
      f"alike). 'equal' ({self.equal_share:.1%} of the votes) is left out; "
      f'with it two workers agree on {self.two_workers_three_way:.3f}'
    )


def ceiling(pairs: Sequence[VotedPair]) -> Ceiling:
  """Measures how far the votes themselves agree.

  Args:
    pairs: with their votes.

  Returns:
    The `Ceiling`; each figure is pooled over votes, or over pairs of votes.

  Raises:
    DataError: no pair has two votes that name a winner.
  """
  counts = np.asarray(
    [
      [sum(vote.value == value for vote in pair.votes) for value in (1, -1, 0)]
      for pair in pairs
    ],
    np.float64,
  ).reshape(-1, 3)
  first, second = counts[:, 0], counts[:, 1]
  named = first + second
  same = _pairs_of(first) + _pairs_of(second)
  both = _pairs_of(named).sum()
  if not both:
    raise DataError(
      'no pair has two votes that name a winner',
      'Give data with several votes per pair',
      pairs[0].path if pairs else '',
      field='votes',
    )
  two_workers = float(same.sum() / both)
  # A vote for `first` meets first − 1 others on its side, `second` against.
  sided = first * _wins(first - 1, second) + second * _wins(second - 1, first)
  alone = named == 1
  return Ceiling(
    num_pairs=int((named > 0).sum()),
    num_votes=int(named.sum()),
    equal_share=float(counts[:, 2].sum() / counts.sum()),
    two_workers_three_way=float(
      _pairs_of(counts).sum() / _pairs_of(counts.sum(axis=1)).sum()
    ),
    two_workers=two_workers,
    flip_rate=(1 - math.sqrt(max(2 * two_workers - 1, 0.0))) / 2,
    majority_of_others=float(sided[~alone].sum() / named[~alone].sum()),
    best=float(np.maximum(first, second).sum() / named.sum()),
  )


def _pairs_of(count: np.ndarray) -> np.ndarray:
  return count * (count - 1) / 2


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
  return (1 + np.sign(ours - theirs)) / 2


def _labelled(
  pair: VotedPair,
  value: int,
  others: Sequence[Vote],
  worker: int,
  label_prob: float,
) -> Preference:
  """The pair as `value` labels it; the other votes seen from `chosen`."""
  texts = (pair.first, pair.second)[::value]
  return Preference(
    prompt=pair.prompt,
    chosen=texts[0],
    rejected=texts[1],
    index=pair.index,
    group=pair.group,
    label_prob=label_prob,
    annotator_id=worker,
    votes=tuple(value * vote.value for vote in others),
    path=pair.path,
    line=pair.line,
  )


def _read_texts(path: str) -> dict[str, tuple[str, str]]:
  """id -> (text, stance)."""
  texts = {}
  for line, row in json_rows(path):
    name = _string(row, 'id', path, line)
    if name in texts:
      raise DataError(
        f'is {name!r} a second time', 'Give each text one id', path, line, 'id'
      )
    stance = _string(row, 'stance', path, line) if 'stance' in row else ''
    texts[name] = _string(row, 'text', path, line), stance
  return texts


def _voted_pair(
  row: dict[str, Any],
  texts: dict[str, tuple[str, str]],
  path: str,
  line: int,
) -> VotedPair:
  title = _string(row, 'title', path, line)
  sides = []
  for field in ('arg1', 'arg2'):
    name = _string(row, field, path, line)
    if name not in texts:
      raise DataError(
        f'is {name!r}, which is no id of {ARGUMENTS}',
        'Add the text, or remove the pair',
        path,
        line,
        field,
      )
    sides.append(texts[name])
  stance = sides[0][1]
  return VotedPair(
    prompt=f'{title}\n{stance}\n' if stance else f'{title}\n',
    first=sides[0][0],
    second=sides[1][0],
    votes=_read_vote_list(row, path, line),
    index=line - 1,
    group=title,
    path=path,
    line=line,
  )


def _read_vote_list(
  row: dict[str, Any], path: str, line: int
) -> tuple[Vote, ...]:
  votes = row.get('votes')
  for vote in votes if isinstance(votes, list) else [None]:
    if (
      not isinstance(vote, dict)
      or vote.get('value') not in VALUES
      or not isinstance(vote.get('worker'), int)
    ):
      raise DataError(
        f'holds {vote!r:.60}, must be a list of {{worker, value}}',
        f'Give a whole number and one of {", ".join(VALUES)}',
        path,
        line,
        'votes',
      )
  return tuple(Vote(vote['worker'], VALUES[vote['value']]) for vote in votes)


def _string(row: dict[str, Any], field: str, path: str, line: int) -> str:
  if not isinstance(row.get(field), str):
    raise DataError(
      f'is {row.get(field)!r:.40}, must be a string (the row has '
      f'{sorted(row)})',
      'Add the column, as text',
      path,
      line,
      field,
    )
  return row[field]


def _fault(pair: VotedPair) -> str:
  if not pair.votes:
    return 'dropped, no votes'
  if pair.first == pair.second:
    return 'dropped, both texts are the same'
  if not pair.first.strip() or not pair.second.strip():
    return 'dropped, empty text'
  return ''
