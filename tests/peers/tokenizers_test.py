"""Ids and rendered conversations are those of `transformers`."""

import dataclasses
import datetime
import json

import numpy as np
import pytest

from alignment.data.encoding import encode
from alignment.data.folder_template import folder_template
from alignment.data.hf_tokenizer import FolderTokenizer
from alignment.data.source import load
from alignment.data.tokenizer_files import byte_files, character_files
from tests.data.tokenizer_folders import KINDS, write_folder
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

TEXTS = (
  'Question : why should they say so ?\n\nAnswer : yes',
  '  leading and  double  spaces ',
  'cafe\u0301 naïve İ ﬁ ½ 日本語 😀👩‍👩‍👧\t\n',
  '1234567 labels, cannot',
  '',
)
CHATML = (
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
  "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " }}
{{- date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first = messages[0]['content'] + '\\n\\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first = '' -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('roles must alternate') }}
    {%- endif -%}
    {%- set role = 'model' if message.role == 'assistant' else message.role -%}
    {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}
    {{- message['content'] | trim }}{{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""
MISTRAL = (
  "{%- set ns = namespace(system='') -%}{{ bos_token }}"
  "{% for message in messages %}{% if message['role'] == 'system' %}"
  "{% set ns.system = message['content'] + '\\n\\n' %}"
  "{% elif message['role'] == 'user' %}"
  "{{ '[INST] ' + ns.system + message['content'] + ' [/INST]' }}"
  "{% set ns.system = '' %}{% else %}{% generation %}"
  "{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
  '{% endif %}{% endfor %}'
)
TEMPLATES = {
  'SentencePiece BPE': MISTRAL,
  'Llama 3': LLAMA,
  'byte-level BPE': CHATML,
  'Unigram': GEMMA.replace('{{ bos_token }}', ''),
}
CONVERSATION = [
  {'role': 'system', 'content': ''},
  {'role': 'user', 'content': ' Question : "why" <so> ?'},
  {'role': 'assistant', 'content': 'yes '},
  {'role': 'user', 'content': 'naïve 😀\n'},
  {'role': 'assistant', 'content': 'because of the labels'},
]


def theirs(folder):
  return peer('transformers').PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize('kind', KINDS)
def test_ids_are_those_of_transformers(kind, tmp_path):
  folder = write_folder(tmp_path / 'a', kind)
  ours, other = FolderTokenizer(folder), theirs(folder)
  for text in TEXTS:
    ids = other(text, add_special_tokens=False)['input_ids']
    assert ours.encode(text).tolist() == ids
    full = other(text)['input_ids']
    # Theirs ends a text where the post-processor does, and so may it begin.
    if full and full[-1] == ours.eos_id and full[-1:] != ids[-1:]:
      full = full[:-1]
    assert ours.encode_parts(text, '').prompt.tolist() == full
  assert ours.vocab_size == len(other)
  for name in ('bos', 'eos', 'pad'):
    said = getattr(other, f'{name}_token_id')
    assert said is None or said == getattr(ours, f'{name}_id')


@pytest.mark.parametrize('files', ['bytes', 'characters'])
def test_written_tokenizers_load_there(files, tmp_path):
  pieces = ['<unk>', '<s>', '</s>', *(f'<0x{b:02X}>' for b in range(256))]
  made = {
    'bytes': byte_files,
    'characters': lambda: character_files(
      [*pieces, *'▁aeé'], bos_id=1, eos_id=2, unk_id=0
    ),
  }[files]()
  for name, content in made.items():
    (tmp_path / name).write_bytes(content)
  ours, other = FolderTokenizer(tmp_path), theirs(tmp_path)
  for text in TEXTS:
    ids = other(text, add_special_tokens=False)['input_ids']
    assert ours.encode(text).tolist() == ids
    assert other.decode(ids) == text == ours.decode(np.asarray(ids))


@pytest.mark.parametrize('kind', TEMPLATES)
def test_conversations_and_their_ids(kind, tmp_path):
  folder = write_folder(tmp_path / 'a', kind, chat_template=TEMPLATES[kind])
  ours, other = FolderTokenizer(folder), theirs(folder)
  template = dataclasses.replace(
    folder_template(folder, ours), date=datetime.date.today()
  )
  for length, opening in ((2, True), (3, False), (4, True), (5, False)):
    messages = CONVERSATION[:length]
    text = other.apply_chat_template(
      messages, add_generation_prompt=opening, tokenize=False
    )
    assert template.render(messages, opening) == text
  path = tmp_path / 'rows.jsonl'
  path.write_text(json.dumps({'messages': CONVERSATION}))
  records, _ = load(path, template=template)
  groups, _ = encode(records, ours)
  for group, length in zip(groups, (3, 5), strict=True):
    ids = other.apply_chat_template(
      CONVERSATION[:length], tokenize=True, return_dict=False
    )
    found = np.concatenate([group.prompt, *group.completions]).tolist()
    # An end that the template wrote is the only one; white space after it goes.
    assert found.count(ours.eos_id) == max(1, ids.count(ours.eos_id))
    if ours.eos_id not in ids:
      ids = [*ids, ours.eos_id]
    last = len(ids) - 1 - ids[::-1].index(ours.eos_id)
    assert found == ids[: last + 1]
