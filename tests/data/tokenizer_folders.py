"""Folders with small tokenizers of the kinds that models come with."""

import json
import pathlib

import tokenizers
from tokenizers import (
  AddedToken,
  Regex,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

WORDS = (
  'the answer is yes or no . why should a naïve café cost 12 € ? they say so '
  'because of the noisy labels , and the reader cannot trust them ! 日本語 😀'
)
CORPUS = [WORDS, WORDS.title(), f'Question : {WORDS}\n\nAnswer : yes\n'] * 4
SIZE = 400
LLAMA_3 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
  r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
"""How Llama 3 splits a text before it merges."""


def byte_level_bpe():
  """As GPT-2: no BOS of its own, offsets trimmed, one token for every end."""
  made = tokenizers.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.post_processor = processors.ByteLevel(trim_offsets=True)
  made.train_from_iterator(
    CORPUS,
    trainers.BpeTrainer(
      vocab_size=SIZE,
      special_tokens=['<|endoftext|>'],
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  end = '<|endoftext|>'
  return made, {'eos_token': end, 'pad_token': end}


def sentencepiece_bpe():
  """As Llama 2: '▁' for spaces and at the start, bytes for the unknown."""
  made = tokenizers.Tokenizer(
    models.BPE(unk_token='<unk>', byte_fallback=True, fuse_unk=True)
  )
  made.decoder = decoders.Sequence(
    [
      decoders.Replace('▁', ' '),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(' ', 1, 0),
    ]
  )
  special = ['<unk>', '<s>', '</s>', *(f'<0x{b:02X}>' for b in range(256))]
  # Merges are learned within words; what is written joins them.
  made.pre_tokenizer = pre_tokenizers.Metaspace()
  made.train_from_iterator(
    CORPUS,
    trainers.BpeTrainer(
      vocab_size=SIZE + 60, special_tokens=special, show_progress=False
    ),
  )
  said = json.loads(made.to_str())
  said['added_tokens'] = said['added_tokens'][:3]
  made = tokenizers.Tokenizer.from_str(json.dumps(said))
  made.pre_tokenizer = pre_tokenizers.Metaspace(
    prepend_scheme='first', split=False
  )
  made.post_processor = processors.TemplateProcessing(
    single='<s> $A', pair='<s> $A <s> $B', special_tokens=[('<s>', 1)]
  )
  end = {'__type': 'AddedToken', 'content': '</s>', 'special': True}
  return made, {'bos_token': '<s>', 'eos_token': end}


def unigram():
  """As T5 or Gemma's kin: a Unigram model, which ends texts itself."""
  made = tokenizers.Tokenizer(models.Unigram())
  made.normalizer = normalizers.NFKC()
  made.pre_tokenizer = pre_tokenizers.Metaspace()
  made.decoder = decoders.Metaspace()
  made.train_from_iterator(
    CORPUS,
    trainers.UnigramTrainer(
      vocab_size=150,
      special_tokens=['<pad>', '</s>', '<unk>'],
      unk_token='<unk>',
      show_progress=False,
    ),
  )
  made.post_processor = processors.TemplateProcessing(
    single='$A </s>', special_tokens=[('</s>', 1)]
  )
  return made, {'pad_token': '<pad>', 'eos_token': '</s>'}


def word_piece():
  """As BERT: lower case, no accents, and its own words for BOS and EOS."""
  made = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
  made.normalizer = normalizers.BertNormalizer(lowercase=True)
  made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  made.decoder = decoders.WordPiece()
  made.train_from_iterator(
    CORPUS,
    trainers.WordPieceTrainer(
      vocab_size=SIZE,
      special_tokens=['[PAD]', '[UNK]', '[CLS]', '[SEP]'],
      show_progress=False,
    ),
  )
  made.post_processor = processors.TemplateProcessing(
    single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
  )
  return made, {'pad_token': '[PAD]', 'unk_token': '[UNK]'}


def llama_3():
  """As Llama 3: split by a pattern, bytes merged, BOS by the template."""
  made = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
  made.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(LLAMA_3), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  made.decoder = decoders.ByteLevel()
  made.train_from_iterator(
    CORPUS,
    trainers.BpeTrainer(
      vocab_size=SIZE,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  begin, turn = '<|begin_of_text|>', '<|eot_id|>'
  names = (begin, '<|end_of_text|>', '<|start_header_id|>')
  names = (*names, '<|end_header_id|>', turn)
  made.add_special_tokens([AddedToken(n, special=True) for n in names])
  made.post_processor = processors.Sequence(
    [
      processors.ByteLevel(trim_offsets=True),
      processors.TemplateProcessing(
        single=f'{begin} $A',
        pair=f'{begin} $A {begin} $B',
        special_tokens=[(begin, made.token_to_id(begin))],
      ),
    ]
  )
  return made, {'bos_token': begin, 'eos_token': turn}


KINDS = {
  'byte-level BPE': byte_level_bpe,
  'SentencePiece BPE': sentencepiece_bpe,
  'Unigram': unigram,
  'WordPiece': word_piece,
  'Llama 3': llama_3,
}


def write_folder(folder: pathlib.Path, kind: str, **config) -> pathlib.Path:
  """`tokenizer.json` and `tokenizer_config.json` of a kind in a new folder."""
  made, named = KINDS[kind]()
  folder.mkdir()
  made.save(str(folder / 'tokenizer.json'))
  said = {'tokenizer_class': 'PreTrainedTokenizerFast', **named, **config}
  (folder / 'tokenizer_config.json').write_text(json.dumps(said))
  return folder
