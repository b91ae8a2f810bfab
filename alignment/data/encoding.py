"""Records become groups of token ids; nothing is cut without being counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignment.data.layout import Group
from alignment.data.records import (
  DataError,
  Preference,
  Report,
  Unpaired,
  refuse_empty,
)
from alignment.data.tokenizers import Parts, Tokenizer

OVERLONG = ('truncate', 'drop', 'error')
STRADDLE = ('cut', 'error')


def encode(
  records: Sequence[Preference] | Sequence[Unpaired],
  tokenizer: Tokenizer,
  *,
  max_prompt_length: int | None = None,
  max_completion_length: int | None = None,
  overlong_prompt: str = 'truncate',
  straddle: str = 'cut',
) -> tuple[list[Group], Report]:
  """Tokenises every text, prompt and completion joined, once.

  A prompt that is too long keeps its end, and its BOS where it begins with one;
  a completion keeps its start. A completion that was not truncated ends with
  EOS, once: one that its text ends with already (an id of `end_ids`) stays, and
  it counts towards `max_completion_length`. An empty prompt becomes BOS. A pair
  whose two completions are equal after truncation is dropped: its margin is 0
  whatever the parameters.

  A token may begin in the prompt and end in the completion ('A: ' before 'yes'
  in a vocabulary that has ' yes'). Under 'cut' it belongs to the completion,
  and the prompt of a pair is what the tokens of both joint texts share before
  it: prompt and completion together are always the tokens of the joint text.
  A prompt that is sampled from has no such token to give up and keeps its end.

  Args:
    records: pairs (chosen becomes completion 0, rejected 1) or unpaired ones
      (K = 1, label_prob is 1.0 for a good and 0.0 for a bad one).
    tokenizer: text to ids.
    max_prompt_length: tokens, ≥ 1; None keeps all.
    max_completion_length: tokens, EOS counted, ≥ 1; None keeps all.
    overlong_prompt: 'truncate' keeps the end, 'drop' drops and counts the
      record, 'error' raises.
    straddle: 'cut' counts the record, 'error' raises.

  Returns:
    The groups in the order of the records, and a report whose places are the
    records' indices.

  Raises:
    ValueError: a length below 1 or an unknown rule.
    DataError: an over-long prompt or a token across the boundary under
      'error', or no group left.
  """
  _check_options(
    max_prompt_length, max_completion_length, overlong_prompt, straddle
  )
  report = Report('encoding', read=len(records))
  groups = []
  for record in records:
    prompt, completions = _tokenised(record, tokenizer, straddle, report)
    prompt = _fit_prompt(
      record,
      prompt,
      tokenizer.bos_id,
      max_prompt_length,
      overlong_prompt,
      report,
    )
    if prompt is None:
      continue
    names = ('chosen', 'rejected') if len(completions) == 2 else ('completion',)
    completions = tuple(
      _fit_completion(
        ids, tokenizer, max_completion_length, name, record, report
      )
      for ids, name in zip(completions, names, strict=True)
    )
    if len(completions) == 2 and np.array_equal(*completions):
      report.add('dropped, equal after tokenisation', record.index)
      continue
    groups.append(_group(record, prompt, completions))
  report.kept = len(groups)
  refuse_empty(groups, report)
  return groups, report


def _check_options(
  max_prompt_length: int | None,
  max_completion_length: int | None,
  overlong_prompt: str,
  straddle: str,
) -> None:
  for name, length in (
    ('max_prompt_length', max_prompt_length),
    ('max_completion_length', max_completion_length),
  ):
    if length is not None and length < 1:
      raise ValueError(f'{name}: {length} must be ≥ 1, or None')
  if overlong_prompt not in OVERLONG:
    raise ValueError(
      f'overlong_prompt: {overlong_prompt!r} must be one of {OVERLONG}'
    )
  if straddle not in STRADDLE:
    raise ValueError(f'straddle: {straddle!r} must be one of {STRADDLE}')


def _tokenised(
  record: Preference | Unpaired,
  tokenizer: Tokenizer,
  straddle: str,
  report: Report,
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Ids of the prompt (BOS where empty) and of the bare completions."""
  try:
    parts = [
      tokenizer.encode_parts(record.prompt, text)
      for text in record.completions()
    ]
  except DataError as error:
    raise DataError(
      error.problem, error.remedy, record.path, record.line
    ) from error
  shared = _shared_length([part.prompt for part in parts])
  moved = any(part.straddling or len(part.prompt) > shared for part in parts)
  if moved and straddle == 'error':
    raise _straddle_error(record, parts)
  if moved:
    report.add('prompt cut before a token across its end', record.index)
  prompt = parts[0].prompt[:shared]
  completions = [
    np.concatenate([part.prompt[shared:], part.completion]) for part in parts
  ]
  if not len(prompt):
    prompt = np.asarray([tokenizer.bos_id], np.int32)
  return prompt, completions


def _shared_length(rows: Sequence[np.ndarray]) -> int:
  """How many ids all the rows begin with in common."""
  shortest = min(map(len, rows))
  same = np.all([row[:shortest] == rows[0][:shortest] for row in rows], axis=0)
  return shortest if same.all() else int(np.argmin(same))


def _straddle_error(
  record: Preference | Unpaired, parts: Sequence[Parts]
) -> DataError:
  found = [
    (part.straddling, text)
    for part, text in zip(parts, record.completions(), strict=True)
    if part.straddling
  ]
  said = (
    f'the token {found[0][0]!r} lies across the boundary '
    f'{record.prompt[-20:]!r} | {found[0][1][:20]!r}'
    if found
    else 'the prompt tokenises differently before the two completions'
  )
  return DataError(
    said,
    'Move the white space at the end of the prompt to the completions, end the '
    "prompt with a turn marker, or set straddle to 'cut'",
    record.path,
    record.line,
    'prompt',
  )


def _fit_prompt(
  record: Preference | Unpaired,
  prompt: np.ndarray,
  bos_id: int,
  limit: int | None,
  rule: str,
  report: Report,
) -> np.ndarray | None:
  """The prompt within its budget, or None where the record is dropped."""
  if limit is None or len(prompt) <= limit:
    return prompt
  if rule == 'error':
    raise DataError(
      f'has {len(prompt)} tokens, max_prompt_length is {limit}',
      "Raise max_prompt_length, or set overlong_prompt to 'truncate' or 'drop'",
      record.path,
      record.line,
      'prompt',
    )
  if rule == 'drop':
    report.add('dropped, over-long prompt', record.index)
    return None
  report.add('truncated, prompt (end kept)', record.index)
  first = prompt[: int(prompt[0] == bos_id)]
  return np.append(first, prompt[len(prompt) - limit + len(first) :])


def _fit_completion(
  ids: np.ndarray,
  tokenizer: Tokenizer,
  limit: int | None,
  name: str,
  record: Preference | Unpaired,
  report: Report,
) -> np.ndarray:
  """The completion with its EOS, or its first `limit` tokens without."""
  if np.isin(ids[:-1], tokenizer.end_ids).any():
    report.add(f'end of text inside, {name}', record.index)
  ended = len(ids) and ids[-1] in tokenizer.end_ids
  if tokenizer.eos_id is not None and not ended:
    ids = np.append(ids, np.int32(tokenizer.eos_id))
  if limit is None or len(ids) <= limit:
    return ids
  report.add(f'truncated, {name} (start kept)', record.index)
  return ids[:limit]


def _group(
  record: Preference | Unpaired,
  prompt: np.ndarray,
  completions: tuple[np.ndarray, ...],
) -> Group:
  paired = isinstance(record, Preference)
  return Group(
    prompt=prompt,
    completions=completions,
    index=record.index,
    chosen=0,
    rejected=1 if paired else 0,
    weight=record.weight,
    label_prob=record.label_prob if paired else float(record.label),
    annotator_id=record.annotator_id,
  )
