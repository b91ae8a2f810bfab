"""The boundary, EOS and the budgets, whatever the text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.encoding import encode
from alignment.data.records import DataError, Preference, Unpaired
from alignment.data.tokenizers import ByteTokenizer, HashedTokenizer, Parts

TEXT = st.text(st.characters(exclude_categories=['Cs']), max_size=12)
SOME = TEXT.filter(str.strip)
BYTES = ByteTokenizer()


def pair(prompt='Question', chosen=' right', rejected=' wrong', **extra):
  extra = {'index': 4, 'group': 'g', 'path': 'a.jsonl', 'line': 5} | extra
  return Preference(prompt=prompt, chosen=chosen, rejected=rejected, **extra)


@given(
  TEXT,
  SOME,
  SOME,
  st.none() | st.integers(1, 12),
  st.none() | st.integers(1, 12),
)
@settings(max_examples=300, deadline=None)
def test_text_eos_and_budgets(prompt, chosen, rejected, longest, budget):
  record = pair(prompt, chosen, rejected)
  try:
    (group,), report = encode(
      [record],
      BYTES,
      max_prompt_length=longest,
      max_completion_length=budget,
    )
  except DataError:
    # Only a pair that its budget makes equal is refused.
    cut = [text.encode()[:budget] for text in (chosen, rejected)]
    assert cut[0] == cut[1]
    return
  whole = prompt.encode() or None
  if whole is None:
    assert group.prompt.tolist() == [BYTES.bos_id]
  else:
    assert bytes(group.prompt.tolist()) == whole[-(longest or len(whole)) :]
  cut_prompt = whole is not None and len(whole) > len(group.prompt)
  assert report.count('truncated, prompt (end kept)') == cut_prompt
  names = ('chosen', 'rejected')
  for name, text, ids in zip(
    names, (chosen, rejected), group.completions, strict=True
  ):
    ids, full = ids.tolist(), [*text.encode(), BYTES.eos_id]
    assert ids == full[:budget]
    truncated = len(ids) < len(full)
    assert (ids[-1] == BYTES.eos_id) == (not truncated)
    assert ids.count(BYTES.eos_id) == (not truncated)
    assert BYTES.bos_id not in ids
    assert report.count(f'truncated, {name} (start kept)') == truncated


def test_no_budget_keeps_the_joint_text():
  record = pair('né?', ' ü', ' ß')
  (group,), report = encode([record], BYTES)
  joined = np.concatenate([group.prompt, group.completions[0]])
  assert BYTES.decode(joined) == 'né? ü'
  assert str(report) == 'encoding: 1 kept of 1 read'


def test_fields_travel_with_the_group():
  record = pair(weight=2.5, label_prob=0.75, annotator_id=3)
  (group,), _ = encode([record], BYTES)
  assert (group.index, group.weight, group.label_prob) == (4, 2.5, 0.75)
  assert (group.annotator_id, group.chosen, group.rejected) == (3, 0, 1)
  for label in (True, False):
    record = Unpaired(
      prompt='', completion='c', label=label, index=1, group='g'
    )
    (group,), _ = encode([record], BYTES)
    assert len(group.completions) == 1
    assert (group.chosen, group.rejected) == (0, 0)
    assert group.label_prob == float(label)


def test_over_long_prompt_by_rule():
  records = [pair(), pair('short', index=9)]
  groups, report = encode(
    records, BYTES, max_prompt_length=6, overlong_prompt='drop'
  )
  assert [group.index for group in groups] == [9]
  assert report.reasons == {'dropped, over-long prompt': [4]}
  with pytest.raises(DataError) as caught:
    encode(records, BYTES, max_prompt_length=6, overlong_prompt='error')
  message = str(caught.value)
  assert message.startswith("a.jsonl, line 5, field 'prompt': has 8 tokens")
  assert 'max_prompt_length is 6. Raise max_prompt_length' in message


def test_equal_after_truncation_is_dropped_and_counted():
  records = [pair('Q', 'same start', 'same end'), pair(index=9)]
  groups, report = encode(records, BYTES, max_completion_length=5)
  assert [group.index for group in groups] == [9]
  assert report.reasons['dropped, equal after tokenisation'] == [4]
  with pytest.raises(DataError, match='none of its 1 rows'):
    encode(records[:1], BYTES, max_completion_length=5)


def test_bags_have_no_prompt_and_no_end():
  tokenizer = HashedTokenizer(999)
  (group,), _ = encode([pair()], tokenizer)
  assert group.prompt.tolist() == [0]
  bag = tokenizer.encode('right')
  np.testing.assert_array_equal(group.completions[0], bag)
  (group,), report = encode(
    [pair('Q', 'one two three', 'four')], tokenizer, max_completion_length=2
  )
  first = tokenizer.encode('one two three')[:2]
  np.testing.assert_array_equal(group.completions[0], first)
  assert report.count('truncated, chosen (start kept)') == 1


class MergingTokenizer(ByteTokenizer):
  """'ab' is one token, of id 0, wherever it stands."""

  def encode(self, text):
    return super().encode(text.replace('ab', '\0'))

  def encode_parts(self, prompt, completion):
    if prompt.endswith('a') and completion.startswith('b'):
      prompt, completion = self.encode(prompt[:-1]), 'a' + completion
      return Parts(prompt, self.encode(completion), 'ab')
    return super().encode_parts(prompt, completion)


@pytest.mark.parametrize('texts', [('bc', 'cb'), ('cb', 'bc')])
def test_a_token_across_the_boundary_belongs_to_the_completions(texts):
  tokenizer = MergingTokenizer()
  (group, other), report = encode(
    [pair('Qa', *texts), pair('Qa', 'c', 'd', index=9)], tokenizer
  )
  joint = [tokenizer.encode(f'Qa{text}') for text in texts]
  assert bytes(group.prompt.tolist()) == b'Q'
  for completion, whole in zip(group.completions, joint, strict=True):
    found = np.concatenate([group.prompt, completion])
    np.testing.assert_array_equal(found, [*whole, tokenizer.eos_id])
  assert bytes(other.prompt.tolist()) == b'Qa'
  reason = 'prompt cut before a token across its end'
  assert report.reasons == {reason: [4]}


def test_a_token_across_the_boundary_is_an_error_where_asked():
  records = [pair('Qa', 'bc', 'cb')]
  with pytest.raises(DataError) as caught:
    encode(records, MergingTokenizer(), straddle='error')
  said = "field 'prompt': the token 'ab' lies across the boundary 'Qa' | 'bc'."
  assert said in str(caught.value)
  encode([pair('Q', 'a', 'b')], MergingTokenizer(), straddle='error')


class MarkedTokenizer(ByteTokenizer):
  """Prompts begin with BOS; '$' is EOS and '%' another end."""

  end_ids = (ord('%'), 257)

  def encode_parts(self, prompt, completion):
    head, tail = self.encode(prompt), self.encode(completion)
    tail = np.where(tail == ord('$'), self.eos_id, tail)
    return Parts(np.append(np.int32(self.bos_id), head), tail)


def test_bos_outlives_truncation_and_an_end_is_not_doubled():
  record = pair('Question', 'r$', 'w%')
  (group,), report = encode([record], MarkedTokenizer(), max_prompt_length=4)
  assert group.prompt.tolist() == [256, *b'ion']
  assert group.completions[0].tolist() == [ord('r'), 257]
  assert group.completions[1].tolist() == [*b'w%']
  assert list(report.reasons) == ['truncated, prompt (end kept)']
  (group,), _ = encode([record], MarkedTokenizer(), max_prompt_length=1)
  assert group.prompt.tolist() == [256]


def test_an_end_inside_a_completion_is_counted():
  record = pair('Q', 'r$more', 'w')
  (group,), report = encode([record], MarkedTokenizer())
  assert group.completions[0].tolist() == [ord('r'), 257, *b'more', 257]
  assert report.reasons == {'end of text inside, chosen': [4]}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'max_prompt_length': 0}, 'max_prompt_length: 0 must be ≥ 1'),
    ({'max_completion_length': -3}, 'max_completion_length: -3 must be ≥ 1'),
    ({'overlong_prompt': 'cut'}, "overlong_prompt: 'cut' must be one of"),
    ({'straddle': 'drop'}, "straddle: 'drop' must be one of"),
  ],
)
def test_options_out_of_range(options, message):
  with pytest.raises(ValueError, match=message):
    encode([pair()], BYTES, **options)
