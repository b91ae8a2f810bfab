import re

import yaml

from alignment.models.huggingface.card import Provenance, model_card

FULL = Provenance(
  data='hh_rlhf, train, 1,200 pairs',
  noise='uniform, flip_rate=0.2',
  loss='rdpo, beta=0.1, label_smoothing=0.2',
  seeds=(11, 7),
  base_model='owner/base-1.5B',
  command='python -m experiments.noisy_dpo \\\n  --seeds=2',
  results={'win rate': '0.61 [0.58, 0.64]'},
  tags=('dpo', 'jax'),
)


def card(provenance=FULL, name='m', architecture='LlamaForCausalLM'):
  return model_card(name, provenance, architecture, 'float32')


def front_matter(text: str) -> dict:
  assert text.startswith('---\n')
  return yaml.safe_load(text.split('\n---\n')[0])


def test_it_says_what_is_known():
  text = card()
  for value in (
    'hh_rlhf, train, 1,200 pairs',
    'uniform, flip_rate=0.2',
    'rdpo, beta=0.1, label_smoothing=0.2',
    '| seeds | 11, 7 |',
    '| win rate | 0.61 [0.58, 0.64] |',
    '    python -m experiments.noisy_dpo \\\n      --seeds=2',
    'LlamaForCausalLM',
    'float32',
  ):
    assert value in text
  assert re.search(r'Versions: Python 3\.\d+\.\d+, .*jax \d', text)


def test_what_the_hub_reads():
  matter = front_matter(card())
  assert matter == {
    'library_name': 'transformers',
    'tags': ['alignment', 'noisy-labels', 'jax', 'dpo'],
    'base_model': 'owner/base-1.5B',
    'pipeline_tag': 'text-generation',
  }
  classifier = front_matter(card(architecture='LlamaForSequenceClassification'))
  assert classifier['pipeline_tag'] == 'text-classification'


def test_a_base_that_is_no_name_of_the_hub_is_only_in_the_table():
  base = 'models/of mine/base'
  text = card(Provenance('', '', '', (), base_model=base))
  assert 'base_model' not in front_matter(text)
  assert f'| base model | {base} |' in text


def test_what_is_not_known_is_said():
  text = card(Provenance('', '', '', ()))
  for what in ('data', 'label noise', 'loss', 'seeds'):
    assert f'| {what} | not stated |' in text
  assert 'trained from scratch' in text


def test_no_text_leaves_its_place():
  evil = 'a | b\n---\nlicense: mit\n| c\\| d"\n# e'
  provenance = Provenance(
    evil, evil, evil, (1,), evil, evil, {evil: evil}, (evil, 'x: [y]')
  )
  text = card(provenance, name=evil)
  matter = front_matter(text)
  assert set(matter) == {'library_name', 'tags', 'pipeline_tag'}
  assert matter['tags'][-2:] == [evil, 'x: [y]']
  body = text.split('\n---\n', 1)[1]
  assert sum(line.startswith('#') for line in body.splitlines()) == 1
  for row in re.findall(r'(?m)^\|.*$', body):
    # A cell ends at a bar that no backslash stands before.
    assert len(re.findall(r'(?<!\\)(?:\\\\)*\|', row)) == 3, row
