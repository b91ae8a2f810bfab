"""Templates write text and nothing else: no code, no loops without end."""

import os
import time

import pytest

from alignment.data import chat_template
from alignment.data.chat_template import ChatTemplate
from alignment.data.records import DataError

USER = {'role': 'user', 'content': 'Who?'}
ANSWER = {'role': 'assistant', 'content': 'Me.'}


def test_plain_turns():
  template = ChatTemplate()
  system = {'role': 'system', 'content': ''}
  prompt = template.render([system, USER], add_generation_prompt=True)
  assert prompt == '\n\nSystem: \n\nHuman: Who?\n\nAssistant:'
  assert template.render([system, USER, ANSWER]) == prompt + ' Me.'


@pytest.mark.parametrize(
  ('source', 'text'),
  [
    ('{{ bos_token }}{{ messages[0].content | trim }}', '<s>Who?'),
    ('{{ {"é": [1, "<"]} | tojson }}', '{"é": [1, "<"]}'),
    ('{{ {"b": 1, "a": 2} | tojson(indent=1) }}', '{\n "b": 1,\n "a": 2\n}'),
    ('{% for i in [1,2,3] %}{% if i == 2 %}{% break %}{% endif %}x', 'x'),
    ('{% generation %}a{% endgeneration %}b', 'ab'),
    ('{% set n = namespace(k=1) %}{% set n.k = 4 %}{{ n.k }}', '4'),
    ('{{ strftime_now("%d %b %Y") }}', '26 Jul 2024'),
    ('{{ tools is none and documents is none }}', 'True'),
    ('{{ dict(a=1)["a"] }}', '1'),
    ('  {% if true %}\n  x\n  {% endif %}\ny', '  x\ny'),
  ],
)
def test_what_templates_expect(source, text):
  source += '{% endfor %}' * source.count('{% for')
  template = ChatTemplate(source, {'bos_token': '<s>'})
  assert template.render([USER]) == text


@pytest.mark.parametrize(
  ('source', 'why'),
  [
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", 'unsafe'),
    ("{{ cycler.__init__.__globals__.os.system('touch x') }}", 'unsafe'),
    ("{{ raise_exception.__globals__['os'] }}", 'undefined|unsafe'),
    ("{{ ('{0.__class__.__init__.__globals__}').format(messages)[0].x }}", ''),
    ("{{ messages.append('x') }}", 'unsafe'),
    ("{{ messages[0].update({'role': 'x'}) }}", 'unsafe'),
    ("{% import 'os' as os %}", 'no loader'),
    ("{% include '/etc/passwd' %}", 'no loader'),
    ('{% set n = namespace() %}{% set n.__class__ = 1 %}', 'private'),
    ('{{ range(1000000) | list }}', 'Range too big'),
    ('{{ "abcdefgh" * 10 ** 10 }}', 'memory'),
    ('{{ "x".ljust(10 ** 11) }}', 'memory'),
    ('{{ "%99999999999d" % 1 }}', 'memory'),
    ('{{ [0] * 10 ** 10 }}', 'memory'),
    (
      '{% for i in range(99999) %}{{ "x" * 9999 }}{% endfor %}',
      'more than 419',
    ),
    ('{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'Recursion'),
    ("{{ raise_exception('roles must alternate') }}", 'must alternate'),
    ('{% for %}', 'TemplateSyntaxError'),
  ],
)
def test_what_no_template_may_do(source, why, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  template = ChatTemplate(source, place='some/folder')
  with pytest.raises(DataError, match=f'some/folder: the chat template.*{why}'):
    template.render([USER])
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
  'source',
  [
    '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}'
    '{% endfor %}',
    '{{ (9 ** (9 ** 9)) % 7 }}',
  ],
)
def test_loops_without_output_end(source, monkeypatch):
  monkeypatch.setattr(chat_template, 'MAX_SECONDS', 1)
  begun = time.monotonic()
  with pytest.raises(DataError, match='takes more than 1 s'):
    ChatTemplate(source).render([USER])
  assert time.monotonic() - begun < 60  # however busy the machine is


def test_a_silent_process_is_not_waited_for(monkeypatch):
  monkeypatch.setattr(chat_template, 'MAX_WAIT', 0.0)
  with pytest.raises(DataError, match='no answer in 0 s'):
    ChatTemplate().render([USER])


def test_one_process_for_many_and_none_afterwards():
  template = ChatTemplate('{{ messages[0].content + bos_token }}', {})
  with template.rendering() as rendering:
    assert not rendering.used
    with pytest.raises(DataError, match="'bos_token' is undefined"):
      rendering.texts([([USER], False)])
    process = rendering._process
    with pytest.raises(DataError, match='cannot be written as JSON'):
      rendering.texts([([{'role': 'user', 'content': object()}], False)])
    assert process is rendering._process and process.poll() is None
  assert process.poll() is not None


def test_the_process_knows_no_environment(monkeypatch):
  monkeypatch.setenv('SECRET', 'x')
  template = ChatTemplate()
  with template.rendering() as rendering:
    rendering.texts([([USER], False)])
    path = f'/proc/{rendering._process.pid}/environ'
    if not os.path.exists(path):
      pytest.skip('needs /proc')
    with open(path, 'rb') as file:
      assert b'SECRET' not in file.read()


def test_template_that_is_too_long():
  with pytest.raises(DataError, match='131073 characters, at most 131072'):
    ChatTemplate('x' * (2**17 + 1))


def test_control_tokens_are_found_longest_first():
  template = ChatTemplate(special=('<|a|>', '<|a|>b'))
  assert template.control_token('x<|a|>by') == '<|a|>b'
  assert template.control_token('x<|c|>') is None
  assert ChatTemplate().control_token('<s>') is None
