"""TFDS data sets, written in array_record and read without TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from alignment.data.chat_template import ChatTemplate
from alignment.data.parsing import Row
from alignment.data.readers import read_file, records_of_rows, row_of
from alignment.data.records import DataError, Preference, Report, Unpaired

UNKNOWN = -1
"""Stands for None in the columns `clean_label` and `is_flipped`."""
SHARED_FEATURES = {
  'prompt': tfds.features.Text(),
  'index': np.int64,
  'group': tfds.features.Text(),
  'weight': np.float32,
  'annotator_id': np.int64,
  'clean_label': np.int64,
  'is_flipped': np.int64,
}
PAIR_FEATURES = SHARED_FEATURES | {
  'chosen': tfds.features.Text(),
  'rejected': tfds.features.Text(),
  'label_prob': np.float32,
  'votes': tfds.features.Sequence(np.int64),
}
UNPAIRED_FEATURES = SHARED_FEATURES | {
  'completion': tfds.features.Text(),
  'label': np.int64,
}

Records = Mapping[str, Sequence[Preference] | Sequence[Unpaired]]


@dataclasses.dataclass(eq=False)
class RecordsConfig(tfds.core.BuilderConfig):
  """A configuration that carries the records of its splits."""

  # TFDS logs the configuration; the texts do not belong there.
  records: Records = dataclasses.field(default_factory=dict, repr=False)


class PreferencePairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Preference pairs or unpaired labels, one column per field of a record.

  Not registered: what was prepared is found by its files, so that no reader
  needs this class.
  """

  name = 'preference_pairs'
  VERSION = tfds.core.Version('1.0.0')
  # Nothing is downloaded, so no checksums lie beside the code; looking for them
  # would need a package that TFDS does not declare.
  code_path = None

  def _info(self) -> tfds.core.DatasetInfo:
    first = next(iter(self.builder_config.records.values()))[0]
    paired = isinstance(first, Preference)
    return tfds.core.DatasetInfo(
      builder=self,
      description='Completions of a prompt and which is labelled better.',
      features=tfds.features.FeaturesDict(
        PAIR_FEATURES if paired else UNPAIRED_FEATURES
      ),
      # The rows keep the order of the file they came from.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    return {
      split: self._generate_examples(records)
      for split, records in self.builder_config.records.items()
    }

  def _generate_examples(self, records) -> Iterator[tuple[int, dict[str, Any]]]:
    for key, record in enumerate(records):
      row = row_of(record)
      for name in ('clean_label', 'is_flipped'):
        row[name] = int(row.get(name, UNKNOWN))
      if isinstance(record, Preference):
        row.setdefault('votes', [])
      else:
        row['label'] = int(record.label)
      yield key, row


def prepare_tfds(
  sources: Mapping[str, str | os.PathLike],
  *,
  config: str,
  data_dir: str | os.PathLike,
  columns: Mapping[str, str] | None = None,
  strict: bool = False,
) -> dict[str, Report]:
  """Writes files of records as the TFDS set `preference_pairs/<config>`.

  Args:
    sources: split -> a file that `readers.read_file` reads, all of one kind.
    config: the name under which it is read back.
    data_dir: the TFDS folder.
    columns: our column name -> the files'.
    strict: raise where a row would be dropped.

  Returns:
    split -> what was read and dropped.

  Raises:
    DataError: a file that cannot be read, pairs mixed with unpaired labels, a
      set of that name is there already.
  """
  read = {
    split: read_file(path, columns=columns, strict=strict)
    for split, path in sources.items()
  }
  if len({type(records[0]) for records, _ in read.values()}) != 1:
    raise DataError(
      'the splits mix pairs with unpaired labels',
      'Prepare them as two sets',
      ', '.join(map(str, sources.values())),
    )
  builder = PreferencePairs(
    data_dir=os.fspath(data_dir),
    config=RecordsConfig(
      name=config,
      records={split: records for split, (records, _) in read.items()},
    ),
    file_format='array_record',
  )
  if os.path.exists(builder.data_dir):
    raise DataError(
      'is prepared already and would not be written again',
      'Choose another config name, or remove the folder',
      str(builder.data_dir),
    )
  builder.download_and_prepare()
  return {split: report for split, (_, report) in read.items()}


def open_tfds(
  name: str,
  split: str,
  data_dir: str | os.PathLike | None = None,
  *,
  download: bool = True,
) -> Sequence[Mapping[str, Any]]:
  """A random-access TFDS split, in array_record, without TensorFlow.

  Args:
    name: 'name', 'name/config' or 'name/config:version'.
    split: a split or a slice of it, 'train[:10%]'.
    data_dir: the TFDS folder; None is TFDS's own.
    download: fetch and prepare the set where it is not there.

  Returns:
    A sequence of rows as TFDS gives them (text as bytes).

  Raises:
    DataError: an unknown set or split, one in another file format.
  """
  data_dir = None if data_dir is None else os.fspath(data_dir)
  try:
    return tfds.data_source(
      name, split=split, data_dir=data_dir, download=download
    )
  except ImportError as error:
    raise DataError(
      f'TFDS needs a package to prepare it: {error}',
      f'pip install {error.name}, or give the data_dir of a prepared set',
      f'tfds:{name}:{split}',
    ) from error
  except (ValueError, NotImplementedError, AssertionError, OSError) as error:
    # The first line: TFDS appends the list of all the sets it knows.
    reason = f'{error}'.strip().partition('\n')[0].rstrip('.')
    raise DataError(
      f'TFDS cannot open it: {reason}',
      'Check name, split and data_dir; sets in another format than '
      "array_record are prepared again with file_format='array_record'",
      f'tfds:{name}:{split}',
    ) from error


def read_tfds(
  name: str,
  split: str,
  *,
  data_dir: str | os.PathLike | None = None,
  columns: Mapping[str, str] | None = None,
  strict: bool = False,
  download: bool = True,
  template: ChatTemplate | None = None,
) -> tuple[list[Preference] | list[Unpaired], Report]:
  """Records of any TFDS preference set.

  Args:
    name, split, data_dir, download: as in `open_tfds`.
    columns: our column name -> the set's.
    strict: raise where a row would be dropped.
    template: as in `readers.read_file`.

  Returns:
    The records in stored order and the report. Floats are stored as float32
    and come back as the shortest decimal that rounds to it.

  Raises:
    DataError: names set, row, field and remedy.
  """
  source = open_tfds(name, split, data_dir, download=download)
  rows = ((i + 1, _plain_row(row)) for i, row in enumerate(source))
  return records_of_rows(
    rows,
    f'tfds:{name}:{split}',
    columns=columns,
    strict=strict,
    template=template,
  )


def _plain_row(row: Mapping[str, Any]) -> Row:
  plain = {name: _plain(value) for name, value in row.items()}
  for name in ('clean_label', 'is_flipped'):
    if plain.get(name) == UNKNOWN:
      plain[name] = None
  return plain


def _plain(value: Any) -> Any:
  """Python's own types instead of numpy's; text stays bytes until checked."""
  if isinstance(value, np.ndarray):
    value = value.tolist()
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if isinstance(value, dict):
    return {name: _plain(item) for name, item in value.items()}
  if isinstance(value, (float, np.floating)):
    return float(str(np.float32(value)))
  return value.item() if isinstance(value, np.generic) else value
