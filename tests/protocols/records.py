"""Small preferences for tests: a good word and a bad one among fillers."""

import gzip
import json
import pathlib

import numpy as np

from alignment.data.records import Preference, Vote, VotedPair

FILLERS = ('red', 'blue', 'green', 'brown', 'black', 'white', 'grey', 'pink')


def texts(rng: np.random.Generator, index: int) -> tuple[str, str]:
  """A good and a bad text; the good one is longer half of the time."""
  words = [' '.join(rng.choice(FILLERS, 3)) for _ in range(2)]
  more = [' and more words', ''][:: 1 if index % 2 else -1]
  good, bad = (
    f'{kind} {text}{tail} {index}'
    for kind, text, tail in zip(('nice', 'nasty'), words, more, strict=True)
  )
  return good, bad


def preferences(
  num_groups: int, per_group: int, *, flip_every: int = 0
) -> list[Preference]:
  """`is_flipped` is unknown, or true for every `flip_every`-th pair."""
  rng, records = np.random.default_rng(7), []
  for index in range(num_groups * per_group):
    good, bad = texts(rng, index)
    flipped = index % flip_every == 0 if flip_every else None
    records.append(
      Preference(
        prompt=f'question {index // per_group}?',
        chosen=bad if flipped else good,
        rejected=good if flipped else bad,
        index=index,
        group=f'group {index // per_group}',
        is_flipped=flipped,
        clean_label=None if flipped is None else not flipped,
      )
    )
  return records


def voted(num_groups: int, per_group: int) -> list[VotedPair]:
  """Four of five votes for the good text; every seventh pair is a tie of
  two with one 'equal', every eleventh nothing but 'equal'."""
  rng, pairs = np.random.default_rng(8), []
  for index in range(num_groups * per_group):
    good, bad = texts(rng, index)
    side = 1 if rng.random() < 0.5 else -1
    values = [side] * 4 + [-side]
    if index % 7 == 6:
      values = [1, 1, -1, -1, 0]
    if index % 11 == 10:
      values = [0] * 5
    pairs.append(
      VotedPair(
        prompt=f'title {index // per_group}\n',
        first=good if side > 0 else bad,
        second=bad if side > 0 else good,
        votes=tuple(Vote(i, v) for i, v in enumerate(values)),
        index=index,
        group=f'title {index // per_group}',
      )
    )
  return pairs


def write_jsonl(path: pathlib.Path, records: list[Preference]) -> pathlib.Path:
  rows = [
    {
      'prompt': r.prompt,
      'chosen': r.chosen,
      'rejected': r.rejected,
      'group': r.group,
    }
    for r in records
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def write_votes(folder: pathlib.Path, pairs: list[VotedPair]) -> pathlib.Path:
  """A folder as `read_votes` reads it."""
  folder.mkdir()
  arguments, votes = [], []
  names = {1: 'a1', -1: 'a2', 0: 'equal'}
  for pair in pairs:
    for side, text in (('x', pair.first), ('y', pair.second)):
      arguments.append({'id': f'{pair.index}{side}', 'text': text})
    votes.append(
      {
        'title': pair.group,
        'arg1': f'{pair.index}x',
        'arg2': f'{pair.index}y',
        'votes': [
          {'worker': v.worker, 'value': names[v.value]} for v in pair.votes
        ],
      }
    )
  for name, rows in (('arguments', arguments), ('pairs_votes', votes)):
    with gzip.open(folder / f'{name}.jsonl.gz', 'wt') as file:
      file.writelines(json.dumps(row) + '\n' for row in rows)
  return folder
