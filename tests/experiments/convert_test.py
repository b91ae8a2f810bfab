"""Models from one form to another, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from alignment.data.tokenizer_files import byte_files
from alignment.models.logits import next_token_logits
from alignment.protocols.conversion import kind_of, read_source
from experiments import convert, noisy_dpo, sft
from tests.experiments import model_folders
from tests.models.huggingface import array_folders
from tests.protocols.records import preferences, write_jsonl


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return model_folders.write(tmp_path_factory.mktemp('base') / 'model')


def converted(given, place, **flags):
  config = convert.Config(input=str(given), output_dir=str(place), **flags)
  return convert.run(config)


def assert_equal(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_folder_to_checkpoint_and_back(model, tmp_path):
  said = converted(model, tmp_path / 'checkpoint', to='checkpoint')
  assert said['kind'] == 'folder' and 'every parameter' in said['verified']
  said = converted(tmp_path / 'checkpoint', tmp_path / 'again')
  assert said['kind'] == 'checkpoint'
  read = read_source(str(tmp_path / 'again'))
  assert_equal(read.params, model_folders.params_of(7))
  assert read.origin.config == model_folders.CONFIG
  assert read.origin.files == model_folders.ORIGIN.files
  assert read.origin.token_ids.items() >= model_folders.IDS.items()
  card = (tmp_path / 'again' / 'README.md').read_text()
  assert '--input=' in card and 'experiments.convert' in card


def test_rounded_to_bfloat16(model, tmp_path):
  said = converted(model, tmp_path / 'rounded', dtype='bfloat16')
  assert 'rounding moved' in said['verified']
  found = read_source(str(tmp_path / 'rounded')).params['embedding']
  wanted = model_folders.params_of(7)['embedding']
  assert 0 < np.abs(np.asarray(found) - wanted).max() < 2**-8


def test_arrays_become_a_folder_that_says_the_same(tmp_path):
  arrays = array_folders.random_arrays(3)
  array_folders.write(tmp_path / 'arrays', arrays)
  assert converted(tmp_path / 'arrays', tmp_path / 'out')['kind'] == 'arrays'
  read = read_source(str(tmp_path / 'out'))
  tokens = np.random.default_rng(5).integers(0, 300, 11)
  found = next_token_logits(read.origin.config)(read.params, tokens[None])[0]
  wanted = array_folders.logits(arrays, array_folders.SIZES, tokens)
  # Of size 10, in float32 through two layers.
  np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.fixture(scope='module')
def adapter(model, tmp_path_factory):
  """A policy of noisy_dpo: adapters of the folder, and what it came to."""
  place = tmp_path_factory.mktemp('trained')
  data = write_jsonl(place / 'pairs.jsonl', preferences(15, 6))
  noisy_dpo.run(
    noisy_dpo.Config(
      data=str(data),
      model=model,
      lora_rank=2,
      loss=('dpo',),
      flip_rate=(0.25,),
      misassumed=0.0,
      batch_size=8,
      steps=4,
      num_stops=1,
      num_validation=8,
      num_test=8,
      learning_rate=(1e-2,),
      seeds=1,
      cache_dir='',
      threads=1,
      max_prompt_length=24,
      max_completion_length=24,
      keep_policies=True,
      output_dir=str(place / 'run'),
    )
  )
  [policy] = place.glob('run/policies/*_dpo_????????')
  return policy


def test_what_noisy_dpo_trained_on_a_folder_is_an_adapter_of_it(adapter, model):
  assert kind_of(str(adapter)) == 'adapter'
  card = (adapter / 'README.md').read_text()
  for text in ('pairs.jsonl', 'exact_count', 'dpo (beta=0.2)', '--lora_rank=2'):
    assert text in card, text
  read = read_source(str(adapter))
  base = model_folders.params_of(7)
  assert_equal(read.params, base)
  moved = np.abs(
    np.asarray(read.whole()['layer_0']['mlp']['down'])
    - base['layer_0']['mlp']['down']
  )
  assert moved.max() > 1e-4


def test_adapters_are_merged_or_written_again(adapter, model, tmp_path):
  wanted = read_source(str(adapter)).whole()
  converted(adapter, tmp_path / 'merged', base=model)
  assert_equal(read_source(str(tmp_path / 'merged')).params, wanted)
  said = converted(adapter, tmp_path / 'adapter', to='adapter')
  assert 'merged weights equal' in said['verified']
  again = read_source(str(tmp_path / 'adapter')).whole()
  # One more product of adapters, in float32.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again, wanted
  )


def test_what_sft_trained_from_scratch_becomes_a_folder(tmp_path):
  data = write_jsonl(tmp_path / 'pairs.jsonl', preferences(8, 3))
  run = sft.Config(
    data=str(data),
    seeds=1,
    steps=2,
    batch_size=8,
    width=8,
    depth=1,
    num_heads=2,
    output_dir=str(tmp_path / 'run'),
  )
  sft.run(run)
  policy = tmp_path / 'run' / 'policies' / 'seed_0'
  converted(policy, tmp_path / 'out')
  read, before = read_source(str(tmp_path / 'out')), read_source(str(policy))
  assert_equal(read.params, before.params)
  assert read.origin.files == byte_files()
  card = (tmp_path / 'out' / 'README.md').read_text()
  for text in ('sft, nats per', 'experiments.sft', 'experiments.convert'):
    assert text in card, text


@pytest.mark.parametrize(
  ('flags', 'complaint'),
  [
    ({'input': ''}, '--input=: must be given'),
    ({'output_dir': ''}, '--output_dir=: must be given'),
    ({'input': 'nothing'}, '--input=nothing: is none of: a Hugging Face'),
    ({'base': 'x'}, '--base=x: only used by an adapter, not by a folder'),
    ({'to': 'adapter'}, 'holds whole weights; adapters come of'),
    ({'to': 'checkpoint', 'dtype': 'bfloat16'}, '--dtype=bfloat16: only used'),
    ({'output_dir': '.'}, '--output_dir=.: is there and not an empty'),
  ],
)
def test_refused(model, tmp_path, monkeypatch, flags, complaint):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'something').mkdir()
  config = convert.Config(input=model, output_dir='out')
  with pytest.raises(ValueError) as refused:
    convert.run(dataclasses.replace(config, **flags))
  assert complaint in str(refused.value)
  assert not (tmp_path / 'out').exists()
