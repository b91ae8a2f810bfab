"""Tokenizers of folders: joint text, boundary, BOS and EOS, every kind."""

import json
import unicodedata

import numpy as np
import pytest
import tokenizers

from alignment.data.encoding import encode
from alignment.data.hf_tokenizer import FolderTokenizer
from alignment.data.records import DataError, Preference
from alignment.data.source import load
from alignment.models.huggingface.family import ModelError
from tests.data.tokenizer_folders import KINDS, write_folder

PARTS = [
  ('Question : why', ' because of the labels .'),
  ('Answer : ', 'yes'),  # a space that most kinds merge with the answer
  ('Answer : no', 'isy'),  # a word divided
  ('Question\n', '\nAnswer'),  # line breaks that merge
  ('', 'yes'),
  ('  leading', '  spaces'),
  ('cafe', '\u0301 and more'),  # a combining accent at the boundary
  ('12', '34567 €'),
  ('日本', '語 😀👩‍👩‍👧 x'),
  ('İstanbul ﬁne ', 'ﬃ ½ x'),  # normalisers change the length
  ('the noisy labels ' * 3000, ' cannot trust ' * 3000),
]
LOSSLESS = ('byte-level BPE', 'SentencePiece BPE', 'Llama 3')


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  root = tmp_path_factory.mktemp('tokenizers')
  return {kind: write_folder(root / kind, kind) for kind in KINDS}


def raw(folder):
  return tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))


@pytest.mark.parametrize('parts', PARTS, ids=lambda parts: repr(parts)[:24])
@pytest.mark.parametrize('kind', KINDS)
def test_parts_are_the_joint_text_tokenised_once(folders, kind, parts):
  tokenizer = FolderTokenizer(folders[kind])
  prompt, completion, straddling = tokenizer.encode_parts(*parts)
  bare = raw(folders[kind]).encode(''.join(parts), add_special_tokens=False)
  begins = [tokenizer.bos_id] * tokenizer.adds_bos
  np.testing.assert_array_equal(
    np.concatenate([prompt, completion]), begins + bare.ids
  )
  assert prompt.dtype == completion.dtype == np.int32
  # The first token of the completion is the first that ends beyond the prompt.
  given = len(parts[0])
  cut = len(prompt) - len(begins)
  assert all(end <= given for _, end in bare.offsets[:cut])
  if cut < len(bare.ids):
    first, end = bare.offsets[cut]
    assert end > given
    if straddling:
      assert straddling.endswith(parts[1][: end - given]) and end > given
    else:
      assert first >= given
  if not straddling and parts[0].strip() and kind in LOSSLESS:
    alone = tokenizer.encode_parts(parts[0], '')
    np.testing.assert_array_equal(alone.prompt, prompt)
    assert not len(alone.completion)


@pytest.mark.parametrize('kind', KINDS)
def test_a_space_before_the_boundary_is_cut_and_counted(folders, kind):
  tokenizer = FolderTokenizer(folders[kind])
  record = Preference(
    prompt='Answer : ', chosen='yes', rejected='no', index=3, group='g'
  )
  (group,), report = encode([record], tokenizer)
  merges = kind != 'WordPiece'  # which has no white space to merge
  assert bool(report.reasons) == merges
  for completion, text in zip(group.completions, ('yes', 'no'), strict=True):
    found = np.concatenate([group.prompt, completion])
    joint = tokenizer.encode('Answer : ' + text).tolist()
    begins = [tokenizer.bos_id] * tokenizer.adds_bos
    assert found.tolist() == [*begins, *joint, tokenizer.eos_id]
  if merges:
    with pytest.raises(DataError, match='lies across the boundary'):
      encode([record], tokenizer, straddle='error')


@pytest.mark.parametrize('kind', LOSSLESS)
@pytest.mark.parametrize('parts', PARTS, ids=lambda parts: repr(parts)[:24])
def test_text_comes_back(folders, kind, parts):
  tokenizer = FolderTokenizer(folders[kind])
  text = ''.join(parts)
  if kind == 'SentencePiece BPE' and text.startswith(' '):
    text = text.lstrip()  # Metaspace adds no space where there is one
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  padded = [tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id]
  assert tokenizer.decode(np.asarray(padded)) == text


def test_unigram_and_word_piece_come_back_normalised(folders):
  text = 'the noisy cafe'
  for kind in ('Unigram', 'WordPiece'):
    tokenizer = FolderTokenizer(folders[kind])
    assert tokenizer.decode(tokenizer.encode(text)) == text
  tokenizer = FolderTokenizer(folders['Unigram'])
  wide = unicodedata.normalize('NFKC', 'ｙｅｓ')
  assert tokenizer.encode('ｙｅｓ').tolist() == tokenizer.encode(wide).tolist()


@pytest.mark.parametrize(
  ('kind', 'bos', 'eos', 'pad', 'adds'),
  [
    ('byte-level BPE', *['<|endoftext|>'] * 3, False),
    ('SentencePiece BPE', '<s>', '</s>', '</s>', True),
    ('Unigram', '</s>', '</s>', '<pad>', False),
    ('WordPiece', '[CLS]', '[SEP]', '[PAD]', True),
    ('Llama 3', '<|begin_of_text|>', '<|eot_id|>', '<|eot_id|>', True),
  ],
)
def test_special_ids(folders, kind, bos, eos, pad, adds):
  tokenizer, known = FolderTokenizer(folders[kind]), raw(folders[kind])
  found = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
  assert found == tuple(map(known.token_to_id, (bos, eos, pad)))
  assert tokenizer.adds_bos == adds
  assert tokenizer.end_ids == (tokenizer.eos_id,)
  assert tokenizer.vocab_size == known.get_vocab_size()


@pytest.mark.parametrize('kind', KINDS)
def test_bos_and_eos_exactly_once(folders, kind):
  tokenizer = FolderTokenizer(folders[kind])
  bos, eos = (
    raw(folders[kind]).id_to_token(i)
    for i in (tokenizer.bos_id, tokenizer.eos_id)
  )
  for prompt in ('', 'Question', bos, f'{bos}Question'):
    for ending in ('', eos, f'{eos}\n', f' {eos}{eos} \n'):
      record = Preference(
        prompt=prompt,
        chosen=f' yes{ending}',
        rejected=f' no{ending}',
        index=0,
        group='g',
      )
      (group,), _ = encode([record], tokenizer)
      ids = group.prompt.tolist()
      once = tokenizer.adds_bos or prompt.startswith(bos) or not prompt
      assert ids.count(tokenizer.bos_id) == once
      assert (ids[0] == tokenizer.bos_id) == once
      for completion in group.completions:
        assert completion.tolist().count(tokenizer.eos_id) == 1
        assert completion[-1] == tokenizer.eos_id


def test_what_configurations_say(tmp_path):
  folder = write_folder(tmp_path / 'a', 'Llama 3', add_bos_token=False)
  tokenizer = FolderTokenizer(folder)
  assert not tokenizer.adds_bos and tokenizer.eos_id != tokenizer.bos_id
  end, turn = map(raw(folder).token_to_id, ('<|end_of_text|>', '<|eot_id|>'))
  # 7 is an ordinary token, as defaults of a class may be.
  said = {'eos_token_id': [turn, end, 7], 'pad_token_id': end}
  (folder / 'generation_config.json').write_text(json.dumps(said))
  other = FolderTokenizer(folder)
  assert other.end_ids == tuple(sorted((end, turn)))
  assert (other.pad_id, other.eos_id) == (end, turn)
  assert other.fingerprint != tokenizer.fingerprint
  assert FolderTokenizer(folder).fingerprint == other.fingerprint
  kept = other.encode_parts('a', ' yes<|end_of_text|>\n').completion
  assert kept[-1] == end


def test_a_folder_whose_special_tokens_are_only_in_the_map(tmp_path):
  folder = write_folder(tmp_path / 'a', 'byte-level BPE')
  (folder / 'tokenizer_config.json').unlink()
  with pytest.raises(ModelError, match='names no token that ends a text'):
    FolderTokenizer(folder)
  (folder / 'config.json').write_text('{"eos_token_id": 0}')
  assert FolderTokenizer(folder).eos_id == 0
  said = {'eos_token': {'content': '</nowhere>'}}
  (folder / 'special_tokens_map.json').write_text(json.dumps(said))
  with pytest.raises(ModelError, match="eos_token is '</nowhere>'"):
    FolderTokenizer(folder)


def test_a_tokenizer_larger_than_the_model(folders):
  folder = folders['Llama 3']
  size = raw(folder).get_vocab_size()
  with pytest.raises(ModelError, match=rf'has {size} tokens.*has embeddings'):
    FolderTokenizer(folder, vocab_size=size - 1)  # EOS has the last id
  assert FolderTokenizer(folder, vocab_size=size + 64).vocab_size == size
  end = raw(folder).token_to_id('<|end_of_text|>')
  tokenizer = FolderTokenizer(folders['Llama 3'], vocab_size=size)
  tokenizer.vocab_size = end
  with pytest.raises(DataError, match=r"'<\|end_of_text\|>', token"):
    tokenizer.encode('a <|end_of_text|>')


def test_a_special_token_that_the_model_has_not_is_refused_in_texts(tmp_path):
  folder = write_folder(tmp_path / 'a', 'byte-level BPE')
  made = raw(folder)
  made.add_special_tokens(['<image>'])
  made.save(str(folder / 'tokenizer.json'))
  size = made.get_vocab_size() - 1
  tokenizer = FolderTokenizer(folder, vocab_size=size)
  assert tokenizer.vocab_size == size
  record = Preference(
    prompt='a',
    chosen=' <image>',
    rejected=' b',
    index=0,
    group='g',
    path='a.jsonl',
    line=4,
  )
  with pytest.raises(DataError, match=r"a\.jsonl, line 4: holds '<image>'"):
    encode([record], tokenizer)


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (lambda f: (f / 'tokenizer.json').write_text('{"model": 1}'), 'no tokeniz'),
    (
      lambda f: (f / 'tokenizer.json').rename(f / 'tokenizer.model'),
      r'there is tokenizer\.model.*use_fast=True',
    ),
    (
      lambda f: (f / 'tokenizer_config.json').write_text(
        '{"added_tokens_decoder": {"9": {"content": "<|endoftext|>"}}}'
      ),
      "lists the token '<|endoftext|>' with id 9",
    ),
    (
      lambda f: (f / 'tokenizer_config.json').write_text(
        '{"added_tokens_decoder": [1]}'
      ),
      'is no object',
    ),
    (
      lambda f: (
        (f / 'tokenizer.json').unlink(),
        (f / 'tokenizer.json').symlink_to('/etc/hostname'),
      ),
      'out of the folder',
    ),
  ],
)
def test_folders_that_cannot_be_used(tmp_path, spoil, message):
  folder = write_folder(tmp_path / 'a', 'byte-level BPE')
  spoil(folder)
  with pytest.raises(ModelError, match=message.replace('|', r'\|')):
    FolderTokenizer(folder)


def test_several_tokens_before_every_text_are_refused(tmp_path):
  folder = write_folder(tmp_path / 'a', 'WordPiece')
  made = raw(folder)
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single='[CLS] [SEP] $A', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
  )
  made.save(str(folder / 'tokenizer.json'))
  with pytest.raises(ModelError, match=r"\['\[CLS\]', '\[SEP\]'\]"):
    FolderTokenizer(folder)


def test_what_a_normaliser_writes_before_the_text_is_no_prompt(tmp_path):
  folder = write_folder(tmp_path / 'a', 'byte-level BPE')
  made = raw(folder)
  made.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex('^'), '#')
  made.save(str(folder / 'tokenizer.json'))
  prompt, completion, _ = FolderTokenizer(folder).encode_parts('', 'yes')
  assert made.encode('yes').offsets[0] == (0, 0)
  assert not len(prompt)
  assert completion.tolist() == made.encode('yes').ids


@pytest.mark.shared
@pytest.mark.parametrize('kind', KINDS)
def test_real_pairs_have_nothing_across_the_boundary(folders, kind, shared_dir):
  path = shared_dir / 'data' / 'hh_rlhf' / 'harmless-base.test.jsonl.gz'
  records = load(path)[0][:200]
  tokenizer = FolderTokenizer(folders[kind])
  groups, report = encode(records, tokenizer)
  assert (len(groups), report.reasons) == (len(records), {})
  begins = [tokenizer.bos_id] * tokenizer.adds_bos
  for group, record in zip(groups, records, strict=True):
    texts = record.completions()
    for ids, text in zip(group.completions, texts, strict=True):
      joint = tokenizer.encode(record.prompt + text)
      found = np.concatenate([group.prompt, ids])
      np.testing.assert_array_equal(found, [*begins, *joint, tokenizer.eos_id])
