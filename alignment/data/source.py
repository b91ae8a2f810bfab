"""One way in: a path or a TFDS name becomes records and a report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from alignment.data.chat_template import ChatTemplate
from alignment.data.readers import SUFFIXES, read_file
from alignment.data.records import DataError, Record, Report
from alignment.data.votes import ARGUMENTS, PAIRS, read_votes

TFDS_PREFIX = 'tfds:'
# The split is what follows the last colon that is not inside brackets.
TFDS_SPEC = re.compile(r'tfds:(.+):((?:[^:\[\]]|\[[^\]]*\])+)')


def load(
  spec: str | os.PathLike,
  *,
  columns: Mapping[str, str] | None = None,
  strict: bool = False,
  data_dir: str | os.PathLike | None = None,
  template: ChatTemplate | None = None,
) -> tuple[list[Record], Report]:
  """Reads whatever `spec` names.

  - `file.jsonl`, `file.jsonl.gz`, `file.parquet`: `Preference`s from columns
    {prompt, chosen, rejected} or {chosen, rejected}, `Unpaired` from {prompt,
    completion, label} or {messages};
  - a folder with `arguments.jsonl.gz` and `pairs_votes.jsonl.gz`: `VotedPair`s,
    labelled by `votes.one_vote` or `votes.majority`;
  - `tfds:name/config:split`: as files.

  Args:
    spec: what to read.
    columns: our column name -> the data's, where they differ; not for votes.
    strict: raise at the first row that would be dropped.
    data_dir: the TFDS folder; only for `tfds:`.
    template: writes columns that hold lists of messages as text; None writes
      plain Human/Assistant turns. Text, and votes, need none.

  Returns:
    The records and what was dropped.

  Raises:
    DataError: names file, line, field and remedy.
    ValueError: an option that the kind of data does not use.
  """
  spec = os.fspath(spec)
  if spec.startswith(TFDS_PREFIX):
    # TFDS takes half a second to load, and only some runs read from it.
    from alignment.data.tfds_source import read_tfds

    matched = TFDS_SPEC.fullmatch(spec)
    if matched is None:
      raise DataError('names no split', 'Write tfds:name/config:split', spec)
    name, split = matched.groups()
    return read_tfds(
      name,
      split,
      data_dir=data_dir,
      columns=columns,
      strict=strict,
      template=template,
    )
  if data_dir is not None:
    raise ValueError(f'data_dir: {data_dir!r} is for tfds: only, not {spec!r}')
  if not os.path.isdir(spec):
    return read_file(spec, columns=columns, strict=strict, template=template)
  if columns:
    raise ValueError('columns: a folder of votes has fixed columns')
  if not os.path.exists(os.path.join(spec, PAIRS)):
    raise DataError(
      'is a folder that holds no votes',
      f'Name one file in it ({", ".join(SUFFIXES)}), or give a folder with '
      f'{ARGUMENTS} and {PAIRS}',
      spec,
    )
  return read_votes(spec, strict=strict)
