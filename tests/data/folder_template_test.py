"""The template of a folder: where it is looked for, what is no template."""

import json

import pytest

from alignment.data.chat_template import PLAIN
from alignment.data.folder_template import folder_template
from alignment.data.hf_tokenizer import FolderTokenizer
from alignment.data.records import DataError
from alignment.models.huggingface.family import ModelError
from tests.data.tokenizer_folders import write_folder

USER = {'role': 'user', 'content': 'Who?'}


@pytest.fixture
def folder(tmp_path):
  return write_folder(tmp_path / 'a', 'SentencePiece BPE')


def found(folder, **options):
  return folder_template(folder, FolderTokenizer(folder), **options)


def configured(folder, template):
  path = folder / 'tokenizer_config.json'
  said = json.loads(path.read_text())
  path.write_text(json.dumps(said | {'chat_template': template}))


def test_none_is_plain_turns_with_the_tokens_of_the_tokenizer(folder):
  template = found(folder)
  assert template.source == PLAIN
  assert template.control_token('a</s>') == '</s>'


def test_one_template_and_a_file_that_overrules_it(folder):
  configured(folder, '{{ bos_token }}{{ messages[0].content }}{{ eos_token }}')
  template = found(folder)
  assert template.render([USER]) == '<s>Who?</s>'
  assert template.place.endswith('tokenizer_config.json')
  (folder / 'chat_template.jinja').write_text('{{ messages | length }}')
  assert found(folder).render([USER]) == '1'


def test_named_templates(folder):
  named = [
    {'name': 'default', 'template': 'a'},
    {'name': 'tool_use', 'template': 'b'},
  ]
  configured(folder, named)
  assert found(folder).source == 'a'
  assert found(folder, name='tool_use').source == 'b'
  with pytest.raises(ModelError, match=r"none named 'rag', but \['default'"):
    found(folder, name='rag')


def test_what_is_no_template(folder, tmp_path):
  configured(folder, 3)
  with pytest.raises(ModelError, match='chat_template is no text'):
    found(folder)
  path = folder / 'chat_template.jinja'
  path.write_bytes(b'\xff')
  with pytest.raises(ModelError, match='is not UTF-8'):
    found(folder)
  path.write_text('x' * 2**19)
  with pytest.raises(DataError, match='at most 131072 are read'):
    found(folder)
  path.unlink()
  outside = tmp_path / 'secret'
  outside.write_text('secret')
  path.symlink_to(outside)
  with pytest.raises(ModelError, match='out of the folder'):
    found(folder)
