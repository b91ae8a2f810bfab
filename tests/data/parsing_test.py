"""Rows become records: prompts found, groups named, wrong values refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data import parsing
from alignment.data.records import DataError, Preference, Unpaired

PAIR = ('prompt', 'chosen', 'rejected')


def parse(row, required=PAIR):
  return parsing.parse_row(row, required, 'some.jsonl', 7)


def pair(**extra):
  return {'prompt': 'Q', 'chosen': ' a', 'rejected': ' b'} | extra


def test_implicit_prompt_ends_with_the_last_shared_assistant_turn():
  head = '\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: what now?\n\nAssistant:'
  prompt = parsing.implicit_prompt(head + ' Go home.', head + ' Go away.')
  assert prompt == head


@pytest.mark.parametrize(
  ('chosen', 'rejected', 'prompt'),
  [
    ('Q: why so? yes', 'Q: why so? yesterday', 'Q: why so?'),
    ('Q: why ', 'Q: why not', 'Q: why'),
    ('Q: why yes', 'Q: why no', 'Q: why'),
    ('blue', 'black', ''),
    ('one', 'two', ''),
  ],
)
def test_implicit_prompt_divides_no_word(chosen, rejected, prompt):
  assert parsing.implicit_prompt(chosen, rejected) == prompt


TEXT = st.lists(
  st.sampled_from(['a', 'é ', '\n\nHuman:', '\n\nAssistant:', ' ', '𝄞', 'bc'])
).map(''.join)


@given(TEXT, TEXT, TEXT)
@settings(max_examples=200, deadline=None)
def test_joint_text_survives_finding_the_prompt(head, chosen, rejected):
  chosen, rejected = head + chosen, head + rejected
  if not chosen or not rejected:
    return
  record = parse({'chosen': chosen, 'rejected': rejected}, PAIR[1:])
  assert record.prompt + record.chosen == chosen
  assert record.prompt + record.rejected == rejected
  shared = [chosen, rejected]
  if '\n\nAssistant:' in record.prompt:
    assert record.prompt.endswith('\n\nAssistant:')
  assert all(text.startswith(record.prompt) for text in shared)


def test_group_is_first_human_turn_then_prompt_then_row():
  turns = '\n\nHuman: Who?\n\nAssistant: Me.\n\nHuman: You?\n\nAssistant:'
  assert parse(pair(prompt=turns)).group == 'Who?'
  assert parse(pair(prompt='Who then?\n')).group == 'Who then?'
  assert parse(pair(prompt='')).group == 'row 6'
  assert parse(pair(prompt=turns, group='talk')).group == 'talk'


def test_defaults_and_extras():
  record = parse(pair())
  assert record == Preference(
    prompt='Q', chosen=' a', rejected=' b', index=6, group='Q'
  )
  record = parse(
    pair(
      label_prob=0.75,
      weight=2,
      annotator_id=4.0,
      is_flipped=1,
      index=31,
      votes=[1, 0, -1],
    )
  )
  assert (record.label_prob, record.weight, record.annotator_id) == (0.75, 2, 4)
  assert (record.is_flipped, record.clean_label) == (True, False)
  assert (record.index, record.votes) == (31, (1, 0, -1))


@pytest.mark.parametrize('label', [True, False])
@pytest.mark.parametrize('flipped', [True, False])
def test_unpaired_clean_label_follows_the_flip(label, flipped):
  row = {'prompt': 'Q', 'completion': 'a', 'label': label}
  required = parsing.required_columns(row)
  record = parse(row | {'is_flipped': flipped}, required)
  assert isinstance(record, Unpaired)
  assert record.label is label
  assert record.clean_label is (label != flipped)


@pytest.mark.parametrize(
  ('extra', 'field', 'problem', 'remedy'),
  [
    ({'chosen': None}, 'chosen', 'missing', 'columns='),
    ({'chosen': 3}, 'chosen', '3 (int), must be a string', 'as text'),
    ({'chosen': 'a\ud800'}, 'chosen', 'not UTF-8', 'surrogate'),
    ({'label_prob': float('nan')}, 'label_prob', 'nan', 'Correct'),
    ({'label_prob': 1.2}, 'label_prob', '1.2, must be finite and in', 'Cor'),
    ({'label_prob': True}, 'label_prob', 'True (bool)', 'plain number'),
    ({'weight': float('inf')}, 'weight', 'inf', 'Correct'),
    ({'weight': -1}, 'weight', '≥ 0', 'Correct'),
    ({'weight': '1'}, 'weight', "'1' (str)", 'plain number'),
    ({'annotator_id': 1.5}, 'annotator_id', '1.5 (float)', 'Correct'),
    ({'annotator_id': float('nan')}, 'annotator_id', 'nan', 'Correct'),
    ({'annotator_id': -2}, 'annotator_id', 'in [-1, 2147483647]', 'Correct'),
    ({'index': -1}, 'index', 'in [0, 2147483647]', 'Correct'),
    ({'index': 2**31}, 'index', 'in [0, 2147483647]', 'Correct'),
    ({'weight': 10**400}, 'weight', '≥ 0', 'Correct'),
    ({'clean_label': 'yes'}, 'clean_label', 'true or false', 'Write true'),
    ({'clean_label': 2}, 'clean_label', 'true or false', 'Write true'),
    ({'votes': [2]}, 'votes', 'a list of', '+1 for chosen'),
    ({'group': 5}, 'group', '5 (int), must be a string', 'as text'),
    (
      {'is_flipped': True, 'clean_label': True},
      *('is_flipped', 'yet clean_label is True', 'one of the two'),
    ),
  ],
)
def test_bad_values_name_file_line_field_and_remedy(
  extra, field, problem, remedy
):
  with pytest.raises(DataError) as caught:
    parse(pair(**extra))
  message = str(caught.value)
  assert message.startswith(f"some.jsonl, line 7, field '{field}': ")
  assert problem in message
  assert remedy in message


def test_required_columns_are_told_from_the_first_row():
  assert parsing.required_columns(['chosen', 'rejected', 'x']) == PAIR[1:]
  assert parsing.required_columns(['chosen', 'rejected', 'prompt']) == PAIR
  assert parsing.required_columns(['messages', 'x']) == ('messages',)
  both = ['messages', 'chosen', 'rejected']
  assert parsing.required_columns(both) == PAIR[1:]
  assert parsing.required_columns(['completion', 'label']) == (
    *('prompt', 'completion', 'label'),
  )
