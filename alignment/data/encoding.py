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
from alignment.data.tokenizers import Tokenizer

OVERLONG = ('truncate', 'drop', 'error')


def encode(
  records: Sequence[Preference] | Sequence[Unpaired],
  tokenizer: Tokenizer,
  *,
  max_prompt_length: int | None = None,
  max_completion_length: int | None = None,
  overlong_prompt: str = 'truncate',
) -> tuple[list[Group], Report]:
  """Tokenises every text once and finds the boundary once.

  A prompt that is too long keeps its end, a completion its start. A completion
  ends with EOS if and only if it was not truncated; EOS counts towards
  `max_completion_length`. An empty prompt becomes BOS; nothing else gets one. A
  pair whose two completions are equal after truncation is dropped: its margin
  is 0 whatever the parameters.

  Args:
    records: pairs (chosen becomes completion 0, rejected 1) or unpaired ones
      (K = 1, label_prob is 1.0 for a good and 0.0 for a bad one).
    tokenizer: text to ids.
    max_prompt_length: tokens, ≥ 1; None keeps all.
    max_completion_length: tokens, EOS counted, ≥ 1; None keeps all.
    overlong_prompt: 'truncate' keeps the end, 'drop' drops and counts the
      record, 'error' raises.

  Returns:
    The groups in the order of the records, and a report whose places are the
    records' indices.

  Raises:
    ValueError: a length below 1 or an unknown rule.
    DataError: an over-long prompt under 'error', a tokenizer that moves the
      boundary, or no group left.
  """
  _check_options(max_prompt_length, max_completion_length, overlong_prompt)
  report = Report('encoding', read=len(records))
  groups = []
  for record in records:
    prompt, completions = _tokenised(record, tokenizer)
    prompt = _fit_prompt(
      record, prompt, max_prompt_length, overlong_prompt, report
    )
    if prompt is None:
      continue
    names = ('chosen', 'rejected') if len(completions) == 2 else ('completion',)
    completions = tuple(
      _fit_completion(
        ids, tokenizer.eos_id, max_completion_length, name, record, report
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


def _tokenised(
  record: Preference | Unpaired, tokenizer: Tokenizer
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Ids of the prompt (BOS where empty) and of the bare completions."""
  parts = [
    tokenizer.encode_parts(record.prompt, text) for text in record.completions()
  ]
  prompt = parts[0][0]
  if any(not np.array_equal(prompt, other) for other, _ in parts[1:]):
    raise DataError(
      'the prompt tokenises differently before the two completions',
      'Use a tokenizer that cuts at the boundary, or end the prompt with a '
      'turn marker',
      record.path,
      record.line,
      'prompt',
    )
  if not len(prompt):
    prompt = np.asarray([tokenizer.bos_id], np.int32)
  return prompt, [completion for _, completion in parts]


def _fit_prompt(
  record: Preference | Unpaired,
  prompt: np.ndarray,
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
  return prompt[len(prompt) - limit :]


def _fit_completion(
  ids: np.ndarray,
  eos_id: int | None,
  limit: int | None,
  name: str,
  record: Preference | Unpaired,
  report: Report,
) -> np.ndarray:
  """The completion with its EOS, or its first `limit` tokens without."""
  if eos_id is not None:
    ids = np.append(ids, np.int32(eos_id))
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
