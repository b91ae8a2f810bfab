import errno
import json
import os
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from alignment.models.huggingface import save
from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.load import load_model
from alignment.models.huggingface.save import save_model, tokenizer_files
from alignment.models.stacking import stack_layers
from alignment.training.mesh import make_mesh, param_shardings, place
from tests.models.huggingface import folders

INDEX = 'model.safetensors.index.json'


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_json(path: pathlib.Path):
  return json.loads(path.read_text())


def test_what_is_in_a_folder(tmp_path):
  folder = tmp_path / 'policy'
  tokenizer = tmp_path / 'tokenizer.json'
  tokenizer.write_text('{"model": 3}')
  returned = save_model(
    folder,
    folders.small_config(),
    folders.random_params(folders.small_config()),
    folders.LLAMA,
    provenance=folders.PROVENANCE,
    token_ids={'bos_token_id': None, 'eos_token_id': [2, 3]},
    files={'tokenizer.json': tokenizer, 'merges.txt': b'a b'},
  )
  assert returned == folder
  assert set(contents(folder)) == {
    'config.json',
    'generation_config.json',
    'README.md',
    'model.safetensors',
    'tokenizer.json',
    'merges.txt',
  }
  assert set(os.listdir(tmp_path)) == {'policy', 'tokenizer.json'}
  assert contents(folder)['merges.txt'] == b'a b'
  assert contents(folder)['tokenizer.json'] == b'{"model": 3}'
  config = read_json(folder / 'config.json')
  assert config['architectures'] == ['LlamaForCausalLM']
  assert config['model_type'] == 'llama'
  assert (config['vocab_size'], config['hidden_size']) == (31, 24)
  assert config['dtype'] == config['torch_dtype'] == 'float32'
  ids = {'bos_token_id': None, 'eos_token_id': [2, 3]}
  assert ids.items() <= config.items()
  assert read_json(folder / 'generation_config.json') == ids


def test_tensors_have_the_names_and_shapes_of_the_table(tmp_path):
  folders.write_folder(tmp_path / 'm')
  tensors = safetensors.numpy.load_file(tmp_path / 'm' / 'model.safetensors')
  name = 'model.layers.{}.self_attn.{}_proj.weight'
  assert tensors[name.format(2, 'q')].shape == (24, 24)
  assert tensors[name.format(2, 'k')].shape == (12, 24)
  assert tensors['lm_head.weight'].shape == (31, 24)
  assert len(tensors) == 3 + 3 * 9


def test_shards_and_their_index(tmp_path):
  limit = 7000
  folders.write_folder(tmp_path / 'one')
  folders.write_folder(tmp_path / 'm', max_shard_size=limit)
  index = read_json(tmp_path / 'm' / INDEX)
  found = {}
  shards = sorted((tmp_path / 'm').glob('*.safetensors'))
  for number, path in enumerate(shards, 1):
    assert path.name == (f'model-{number:05d}-of-{len(shards):05d}.safetensors')
    tensors = safetensors.numpy.load_file(path)
    assert sum(array.nbytes for array in tensors.values()) <= limit
    for name, array in tensors.items():
      assert index['weight_map'][name] == path.name
      assert name not in found
      found[name] = array
  assert set(index['weight_map']) == set(found)
  sizes = sum(array.nbytes for array in found.values())
  assert index['metadata']['total_size'] == sizes
  whole = safetensors.numpy.load_file(tmp_path / 'one' / 'model.safetensors')
  assert folders.same(found, whole)
  assert len(shards) >= sizes / limit


def test_a_tensor_larger_than_a_shard_has_one_to_itself(tmp_path):
  folders.write_folder(tmp_path / 'm', max_shard_size=1)
  shards = list((tmp_path / 'm').glob('*.safetensors'))
  assert len(shards) == 30
  assert len(load_model(tmp_path / 'm').params) == 6


def test_the_same_folder_from_stacked_or_spread_parameters(tmp_path):
  config = folders.small_config()
  params = folders.write_folder(tmp_path / 'plain')
  mesh = make_mesh('fsdp=4,tensor=2')
  spread = place(params, param_shardings(params, mesh, min_size=1))
  assert not jax.tree.leaves(spread)[0].is_fully_replicated
  options = dict(provenance=folders.PROVENANCE)
  save_model(tmp_path / 'a', config, spread, folders.LLAMA, **options)
  save_model(
    tmp_path / 'b',
    folders.small_config(scan_layers=True),
    stack_layers(params),
    folders.LLAMA,
    **options,
  )
  plain = contents(tmp_path / 'plain')
  for other in ('a', 'b'):
    found = contents(tmp_path / other)
    assert set(found) == set(plain)
    for name in ('model.safetensors', 'config.json'):
      assert found[name] == plain[name]


def test_bfloat16_is_rounded_once(tmp_path):
  params = folders.write_folder(tmp_path / 'm', dtype='bfloat16')
  tensors = safetensors.numpy.load_file(tmp_path / 'm' / 'model.safetensors')
  assert {array.dtype.name for array in tensors.values()} == {'bfloat16'}
  np.testing.assert_array_equal(
    tensors['model.embed_tokens.weight'],
    params['embedding'].astype(ml_dtypes.bfloat16),
  )
  config = read_json(tmp_path / 'm' / 'config.json')
  assert config['dtype'] == config['torch_dtype'] == 'bfloat16'


def test_a_reward_model_is_a_classifier_of_one_label(tmp_path):
  config = folders.small_config(head='scalar')
  params = folders.write_folder(
    tmp_path / 'm', config, token_ids={'pad_token_id': 0}
  )
  fields = read_json(tmp_path / 'm' / 'config.json')
  assert fields['architectures'] == ['LlamaForSequenceClassification']
  assert len(fields['id2label']) == len(fields['label2id']) == 1
  tensors = safetensors.numpy.load_file(tmp_path / 'm' / 'model.safetensors')
  np.testing.assert_array_equal(
    tensors['score.weight'], params['reward_head'][None]
  )
  assert 'lm_head.weight' not in tensors


def test_tokenizer_files_are_copied_from_the_folder_of_the_base(tmp_path):
  folders.write_folder(
    tmp_path / 'base',
    files={'tokenizer.json': b'{}', 'vocab.json': b'{"a": 0}', 'x.py': b'1'},
  )
  files = tokenizer_files(tmp_path / 'base')
  assert set(files) == {'tokenizer.json', 'vocab.json'}
  folders.write_folder(tmp_path / 'm', files=files)
  assert contents(tmp_path / 'm')['vocab.json'] == b'{"a": 0}'
  (tmp_path / 'secret').write_text('s')
  (tmp_path / 'base' / 'merges.txt').symlink_to('../secret')
  with pytest.raises(ModelError, match='out of the folder'):
    tokenizer_files(tmp_path / 'base')


# Whole or absent.


def test_what_is_there_is_not_overwritten(tmp_path):
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'mine').write_text('mine')
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'link').symlink_to(tmp_path / 'target')
  for name in ('full', 'file', 'link'):
    with pytest.raises(ModelError, match=f'{name}: is there and not an empty'):
      folders.write_folder(tmp_path / name)
  assert set(os.listdir(tmp_path)) == {'full', 'file', 'link'}
  assert contents(tmp_path / 'full') == {'mine': b'mine'}


def test_an_empty_folder_is_filled(tmp_path):
  (tmp_path / 'm').mkdir()
  params = folders.write_folder(tmp_path / 'm')
  assert folders.same(load_model(tmp_path / 'm').params, params)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
  written = save.write_tensors

  def fill_up(path, *rest):
    if '00002' in path.name:
      raise OSError(errno.ENOSPC, 'No space left on device')
    written(path, *rest)

  monkeypatch.setattr(save, 'write_tensors', fill_up)
  with pytest.raises(ModelError, match='m: .*No space left.*Free space'):
    folders.write_folder(tmp_path / 'm', max_shard_size=7000)
  assert not os.listdir(tmp_path)


def test_a_disk_that_is_too_small_is_told_before(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
    shutil, 'disk_usage', lambda _: usage._replace(free=20_000)
  )
  with pytest.raises(ModelError, match='bytes needed, 20000 are free'):
    folders.write_folder(tmp_path / 'm')
  assert not os.listdir(tmp_path)


def test_a_parent_that_is_not_there(tmp_path):
  with pytest.raises(ModelError, match='cannot be written.*No such file'):
    folders.write_folder(tmp_path / 'a' / 'm')


def test_parameters_that_are_no_numbers_leave_nothing(tmp_path):
  params = folders.random_params(folders.small_config())
  params['layer_1']['mlp']['down'][3, 2] = np.nan
  with pytest.raises(ModelError, match='layers.1.mlp.down_proj.*NaN'):
    save_model(
      tmp_path / 'm',
      folders.small_config(),
      params,
      folders.LLAMA,
      provenance=folders.PROVENANCE,
    )
  assert not os.listdir(tmp_path)


# Arguments.


@pytest.mark.parametrize(
  ('options', 'problem'),
  [
    ({'dtype': 'float16'}, "dtype='float16' must be one of"),
    ({'max_shard_size': 0}, 'max_shard_size=0 must be ≥ 1'),
    ({'token_ids': {'unk_token_id': 1}}, 'unk_token_id must be among'),
    ({'files': {'../x': b''}}, r"'../x' must be a file name of its own"),
    ({'files': {'/x': b''}}, 'must be a file name'),
    ({'files': {'config.json': b''}}, 'must be a file name of its own'),
    ({'files': {'model.safetensors.index.json': b''}}, 'must be a file name'),
    ({'files': {'y.safetensors': b''}}, 'must be a file name of its own'),
  ],
)
def test_arguments_that_are_refused(tmp_path, options, problem):
  with pytest.raises(ValueError, match=problem):
    folders.write_folder(tmp_path / 'm', **options)
  assert not os.listdir(tmp_path)


def test_parameters_of_another_config(tmp_path):
  params = folders.random_params(folders.small_config())
  for config, problem in (
    (folders.small_config(depth=2), 'must not have layer_2/'),
    (folders.small_config(depth=4), 'must have layer_3/'),
    (folders.small_config(mlp_width=9), r'down\]=\(10, 24\) must .*\(9, 24\)'),
    (folders.small_config(scan_layers=True), 'must have layers/'),
  ):
    with pytest.raises(ValueError, match=problem):
      save_model(
        tmp_path / 'm',
        config,
        params,
        folders.LLAMA,
        provenance=folders.PROVENANCE,
      )
  lora = params['layer_0']['mlp'] | {'lora': {'a': np.ones(3)}}
  params['layer_0'] = params['layer_0'] | {'mlp': lora}
  with pytest.raises(
    ValueError, match='must not have .*lora/a; merge adapters'
  ):
    save_model(
      tmp_path / 'm',
      folders.small_config(),
      params,
      folders.LLAMA,
      provenance=folders.PROVENANCE,
    )


def test_what_a_family_cannot_express_is_refused(tmp_path):
  config = folders.small_config(window=4)
  with pytest.raises(ValueError, match='window'):
    folders.write_folder(tmp_path / 'm', config)
  save_model(
    tmp_path / 'm',
    config,
    folders.random_params(config),
    FAMILIES['MistralForCausalLM'],
    provenance=folders.PROVENANCE,
  )
  assert load_model(tmp_path / 'm').config.window == 4
