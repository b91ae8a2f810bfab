"""The chat template of a model folder."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from alignment.data.chat_template import MAX_TEMPLATE, ChatTemplate
from alignment.data.hf_tokenizer import TOKENIZER_CONFIG, FolderTokenizer
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.folder_files import file_inside, read_json

TEMPLATE_FILE = 'chat_template.jinja'


def folder_template(
  folder: str | os.PathLike,
  tokenizer: FolderTokenizer,
  *,
  name: str = 'default',
) -> ChatTemplate:
  """The chat template of a model folder; plain turns where it has none.

  Args:
    folder: with `chat_template.jinja`, or with `chat_template` in
      `tokenizer_config.json`: one, or a list of named ones.
    tokenizer: of the folder, whose tokens the template writes.
    name: of a named one.

  Raises:
    ModelError: no template of that name, or one that is no text.
    DataError: one that is too long.
  """
  folder = pathlib.Path(folder)
  source, place = None, folder / TOKENIZER_CONFIG
  if (folder / TEMPLATE_FILE).exists():
    place = file_inside(folder, TEMPLATE_FILE)
    with open(place, 'rb') as file:
      raw = file.read(4 * MAX_TEMPLATE + 1)
    try:
      source = raw.decode('utf-8')
    except UnicodeDecodeError as error:
      raise ModelError(
        str(place), f'is not UTF-8 ({error})', 'Download it again'
      ) from error
  elif place.exists():
    said = read_json(folder, TOKENIZER_CONFIG).get('chat_template')
    source = _named(said, name, str(place)) if isinstance(said, list) else said
  if source is None:
    return ChatTemplate(special=tokenizer.special)
  if not isinstance(source, str):
    raise ModelError(
      str(place), 'chat_template is no text', 'Write it as a string'
    )
  return ChatTemplate(source, tokenizer.tokens, tokenizer.special, str(place))


def _named(listed: Sequence[Any], name: str, place: str) -> Any:
  found = {
    one['name']: one.get('template')
    for one in listed
    if isinstance(one, dict) and isinstance(one.get('name'), str)
  }
  if name not in found:
    raise ModelError(
      place,
      f'chat_template has none named {name!r}, but {sorted(found)}',
      'Name one of them',
    )
  return found[name]
