import dataclasses
import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.load import load_model
from alignment.models.huggingface.table import by_path
from alignment.models.stacking import stack_layers
from alignment.models.transformer import transformer
from alignment.training.mesh import make_mesh, param_shardings
from tests.models.huggingface import folders

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
QUERY = 'model.layers.1.self_attn.q_proj.weight'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A folder that every test may copy, and its parameters."""
  folder = tmp_path_factory.mktemp('models') / 'whole'
  return folder, folders.write_folder(folder, token_ids={'eos_token_id': 2})


@pytest.fixture
def spoilt(whole, tmp_path):
  """A copy of it that a test may spoil."""
  folder = tmp_path / 'model'
  folder.mkdir()
  for path in whole[0].iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  return folder


@pytest.mark.parametrize(
  ('changes', 'overrides'),
  [
    ({}, {}),
    ({'tied_head': True}, {'matmul_dtype': 'bfloat16', 'head_chunk': 7}),
    ({'qkv_bias': True, 'output_bias': True, 'mlp_bias': True}, {}),
    ({'head': 'scalar'}, {}),
    ({'head': 'both'}, {'head': 'both', 'remat': True}),
  ],
)
def test_what_was_saved_comes_back_to_the_bit(tmp_path, changes, overrides):
  config = folders.small_config(**changes)
  params = folders.write_folder(tmp_path / 'm', config)
  loaded = load_model(tmp_path / 'm', **overrides)
  assert loaded.config == dataclasses.replace(config, **overrides)
  assert loaded.family is folders.LLAMA
  assert folders.same(loaded.params, params)
  shapes = jax.eval_shape(transformer(config).init, jax.random.key(0))
  assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(
    lambda leaf: leaf.shape, loaded.params
  )
  for leaf in jax.tree.leaves(loaded.params):
    assert isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32


def test_layers_are_stacked_on_the_device(whole):
  folder, params = whole
  loaded = load_model(folder, scan_layers=True)
  assert loaded.config.scan_layers
  assert folders.same(loaded.params, stack_layers(params))


@pytest.mark.parametrize('scan_layers', [False, True])
def test_a_mesh_is_loaded_onto(whole, scan_layers):
  folder, params = whole
  mesh = make_mesh('data=2,fsdp=2,tensor=2')
  place = functools.partial(param_shardings, mesh=mesh, min_size=1)
  loaded = load_model(folder, shardings=place, scan_layers=scan_layers)
  wanted = stack_layers(params) if scan_layers else params
  assert folders.same(loaded.params, wanted)
  where = by_path(place(wanted))
  spread = 0
  for path, leaf in by_path(loaded.params).items():
    assert leaf.sharding.is_equivalent_to(where[path], leaf.ndim), path
    spread += not leaf.is_fully_replicated
  assert spread > 3


def test_shards_are_one_model(tmp_path, whole):
  params = folders.write_folder(tmp_path / 'm', max_shard_size=3000)
  shards = list((tmp_path / 'm').glob('*.safetensors'))
  assert len(shards) > 5
  assert folders.same(load_model(tmp_path / 'm').params, params)
  assert folders.same(params, whole[1])


def test_the_cache_of_the_hub(whole, tmp_path):
  """Its snapshots are links to blobs."""
  folder, params = whole
  snapshot = tmp_path / 'models--a--b' / 'snapshots' / '01'
  snapshot.mkdir(parents=True)
  (tmp_path / 'models--a--b' / 'blobs').mkdir()
  for number, path in enumerate(folder.iterdir()):
    blob = tmp_path / 'models--a--b' / 'blobs' / str(number)
    blob.write_bytes(path.read_bytes())
    (snapshot / path.name).symlink_to(f'../../blobs/{number}')
  assert folders.same(load_model(snapshot).params, params)


def test_matrices_may_be_kept_in_bfloat16(whole):
  folder, params = whole
  for scan_layers in (False, True):
    loaded = load_model(folder, dtype='bfloat16', scan_layers=scan_layers)
    wanted = stack_layers(params) if scan_layers else params
    kept = {}
    for path, leaf in by_path(loaded.params).items():
      original = np.asarray(by_path(wanted)[path])
      np.testing.assert_array_equal(leaf, original.astype(leaf.dtype))
      kept.setdefault(leaf.dtype.name, set()).add(path.rpartition('/')[2])
    assert kept == {
      'float32': {'scale'},
      'bfloat16': {'embedding', 'head', 'qkv', 'output', 'gate_up', 'down'},
    }


def test_folders_in_bfloat16_are_read_as_float32(tmp_path):
  params = folders.write_folder(tmp_path / 'm', dtype='bfloat16')
  rounded = jax.tree.map(
    lambda leaf: leaf.astype(ml_dtypes.bfloat16).astype(np.float32), params
  )
  assert folders.same(load_model(tmp_path / 'm').params, rounded)


# Heads.


def test_a_reward_head_is_read_where_there_is_one_else_zero(tmp_path, whole):
  config = folders.small_config(head='both')
  params = folders.write_folder(tmp_path / 'm', config)
  for head in ('both', 'scalar'):
    loaded = load_model(tmp_path / 'm', head=head).params
    np.testing.assert_array_equal(loaded['reward_head'], params['reward_head'])
    assert ('head' in loaded) == (head == 'both')
  with pytest.raises(ModelError, match="score.weight.*head='scalar'"):
    load_model(tmp_path / 'm')
  fresh = load_model(whole[0], head='scalar').params
  np.testing.assert_array_equal(fresh['reward_head'], np.zeros(24))
  assert 'head' not in fresh


def test_a_classifier_has_a_reward_head_unless_asked(tmp_path):
  config = folders.small_config(head='scalar')
  params = folders.write_folder(tmp_path / 'm', config)
  assert load_model(tmp_path / 'm').config.head == 'scalar'
  with pytest.raises(ModelError, match='1 of .* missing: lm_head.weight'):
    load_model(tmp_path / 'm', head='both')
  folders.edit_tensors(tmp_path / 'm', lambda t: t.pop('score.weight'))
  with pytest.raises(ModelError, match='1 of .* missing: score.weight'):
    load_model(tmp_path / 'm')
  two = np.ones((2, 24), np.float32)
  folders.edit_tensors(
    tmp_path / 'm', lambda t: t.update({'score.weight': two})
  )
  with pytest.raises(ModelError, match=r'score.*shape \[2, 24\].*\[1, 24\]'):
    load_model(tmp_path / 'm')
  assert params['reward_head'].shape == (24,)


def test_a_tied_head_may_be_there_if_it_is_the_embedding(tmp_path):
  config = folders.small_config(tied_head=True)
  params = folders.write_folder(tmp_path / 'm', config)
  copy = {'lm_head.weight': params['embedding']}
  folders.edit_tensors(tmp_path / 'm', lambda t: t.update(copy))
  assert folders.same(load_model(tmp_path / 'm').params, params)
  other = params['embedding'].copy()
  other[30, 23] += 1e-3
  copy = {'lm_head.weight': other}
  folders.edit_tensors(tmp_path / 'm', lambda t: t.update(copy))
  with pytest.raises(ModelError, match='lm_head.*differs from the embedding'):
    load_model(tmp_path / 'm')


def test_other_names_and_tensors_that_hold_nothing(spoilt, whole):
  def change(tensors):
    for name in list(tensors):
      tensors[name.removeprefix('model.')] = tensors.pop(name)
    table = 'layers.0.self_attn.rotary_emb.inv_freq'
    tensors[table] = np.ones(3, np.float32)

  folders.edit_tensors(spoilt, change)
  assert folders.same(load_model(spoilt).params, whole[1])


def test_one_parameter_under_two_names(spoilt):
  folders.edit_tensors(
    spoilt, lambda t: t.update({'norm.weight': t['model.norm.weight']})
  )
  with pytest.raises(ModelError, match='are the same parameter'):
    load_model(spoilt)


# What is refused.


@pytest.mark.parametrize(
  ('changes', 'problem'),
  [
    (
      {'architectures': ['T5Model']},
      "'T5Model' is not known.*Qwen3ForCausalLM",
    ),
    ({'architectures': None}, 'architectures is None'),
    ({'architectures': ['a', 'b']}, 'not one name'),
    ({'architectures': [['LlamaForCausalLM']]}, 'not one name'),
    ({'auto_map': {'AutoModel': 'evil.Model'}}, 'never run'),
    ({'quantization_config': {'bits': 4}}, 'quantised'),
    ({'compression_config': {'a': 4}}, 'compressed'),
    ({'vocab_size': 2**70}, 'vocab_size'),
    ({'vocab_size': 10**300}, 'vocab_size'),
    ({'hidden_size': -24}, 'hidden_size'),
    ({'hidden_size': 2**20}, r'embed_tokens.*shape \[31, 24\]'),
    ({'intermediate_size': 11}, r'shape \[10, 24\], config.json says \[11'),
    ({'num_hidden_layers': 2**62}, 'num_hidden_layers'),
    ({'num_hidden_layers': 4000}, '30 tensors, config.json says 4000'),
    ({'num_hidden_layers': 4}, '9 of 39 tensors are missing'),
    ({'num_hidden_layers': 2}, 'unknown: model.layers.2'),
    ({'num_attention_heads': True}, 'num_attention_heads'),
    ({'max_position_embeddings': 10**18}, 'max_position_embeddings'),
    ({'tie_word_embeddings': True}, 'differs from the embedding'),
    ({'eos_token_id': 31}, 'eos_token_id'),
  ],
)
def test_descriptions_that_are_refused(spoilt, changes, problem):
  (spoilt / 'generation_config.json').unlink()
  folders.edit_json(spoilt, changes)
  with pytest.raises(ModelError, match=problem) as caught:
    load_model(spoilt)
  assert str(spoilt) in str(caught.value)


def _junk():
  deep = [1]
  for _ in range(60):
    deep = [deep]
  return (
    [], {}, '', 'x' * 5000, -1, 0, 1.5, 1e300, True, 10**400, None, deep,
    {'rope_type': 'yarn', 'factor': -1}, [None] * 3, {'a': {'b': [{}]}},
  )  # fmt: skip


def test_no_value_of_any_field_does_anything_but_be_refused(spoilt):
  """Each field of every family with values of every type and size."""
  for family in FAMILIES.values():
    defaults = dict(family.defaults) | {'rope_theta': 1e4, 'rope_scaling': None}
    for name in [*defaults, *family.fixed]:
      for value in _junk():
        changed = defaults | {name: value}
        try:
          family.read(changed)
        except ModelError:
          continue


def test_the_token_ids_of_generation_come_first(spoilt):
  assert load_model(spoilt).token_ids == {'eos_token_id': 2}
  folders.edit_json(
    spoilt, {'eos_token_id': 3, 'pad_token_id': -1, 'bos_token_id': 1}
  )
  assert load_model(spoilt).token_ids == {
    'eos_token_id': 2,
    'pad_token_id': None,
    'bos_token_id': 1,
  }
  folders.edit_json(spoilt, {'eos_token_id': [4, 5]}, 'generation_config.json')
  assert load_model(spoilt).token_ids == {
    'eos_token_id': [4, 5],
    'pad_token_id': None,
    'bos_token_id': 1,
  }


@pytest.mark.parametrize(
  ('change', 'problem'),
  [
    (lambda t: t.pop(QUERY), '1 of 30 tensors are missing: .*layers.1.*q_proj'),
    (lambda t: t.update(more=t[QUERY]), '1 tensors are unknown: more'),
    (lambda t: t.update({QUERY: t[QUERY].T[:20]}), r'q_proj.*shape \[20, 24\]'),
    (lambda t: t.update({QUERY: t[QUERY][None]}), r'shape \[1, 24, 24\]'),
    (lambda t: t[QUERY].__setitem__((3, 2), np.nan), 'q_proj.*holds NaN'),
    (lambda t: t.update({QUERY: t[QUERY].astype('i1')}), 'q_proj.*holds I8'),
  ],
)
def test_tensors_that_are_refused(spoilt, change, problem):
  folders.edit_tensors(spoilt, change)
  with pytest.raises(ModelError, match=problem):
    load_model(spoilt)


def test_files_that_are_not_there(spoilt):
  (spoilt / SINGLE).unlink()
  with pytest.raises(ModelError, match=f'has no {SINGLE} and no {INDEX}'):
    load_model(spoilt)
  (spoilt / 'config.json').unlink()
  with pytest.raises(ModelError, match='config.json: cannot be read'):
    load_model(spoilt)
  with pytest.raises(ModelError, match='is no folder'):
    load_model(spoilt / 'nothing')
  with pytest.raises(ModelError, match='is no folder'):
    load_model(spoilt / 'README.md')


def test_pickles_are_not_opened(spoilt, tmp_path):
  """A pickle that makes a file where it is read; it stays unread."""
  trap = tmp_path / 'sprung'
  code = f"cposix\nsystem\n(S'touch {trap}'\ntR."
  (spoilt / SINGLE).unlink()
  for name in ('pytorch_model.bin', 'model.pt'):
    (spoilt / name).write_text(code)
  with pytest.raises(ModelError, match='model.pt, pytorch_model.bin.*pickles'):
    load_model(spoilt)
  assert not trap.exists()
  assert (spoilt / 'model.pt').stat().st_atime <= os.stat(spoilt).st_mtime


def test_code_in_the_folder_is_not_run(spoilt, tmp_path, monkeypatch):
  """Neither that of the model nor modules that shadow ours."""
  monkeypatch.chdir(spoilt)
  trap = tmp_path / 'sprung'
  for name in (
    'modeling_llama.py',
    'configuration_llama.py',
    'sitecustomize.py',
  ):
    (spoilt / name).write_text(f'open({str(trap)!r}, "w")')
  load_model(spoilt)
  assert not trap.exists()


# Shards.


@pytest.fixture
def sharded(tmp_path) -> pathlib.Path:
  folders.write_folder(tmp_path / 'm', max_shard_size=16_000)
  assert len(list((tmp_path / 'm').glob('*.safetensors'))) == 3
  return tmp_path / 'm'


def _remap(folder, change):
  index = json.loads((folder / INDEX).read_text())
  change(index)
  (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
  'shard',
  ['../secret.safetensors', '/etc/passwd', 'a/../../x', '..', '', '.\0'],
)
def test_shards_outside_of_the_folder(sharded, tmp_path, shard):
  (tmp_path / 'secret.safetensors').write_bytes(
    (sharded / 'model-00001-of-00003.safetensors').read_bytes()
  )
  _remap(sharded, lambda index: index['weight_map'].update({QUERY: shard}))
  with pytest.raises(ModelError, match='not that of a file directly in'):
    load_model(sharded)


def test_a_shard_that_is_a_link_out_of_the_folder(sharded, tmp_path):
  inside = sharded / 'model-00001-of-00003.safetensors'
  inside.rename(tmp_path / 'elsewhere')
  inside.symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(ModelError, match='is a link to .*elsewhere, out of'):
    load_model(sharded)


@pytest.mark.parametrize(
  ('change', 'problem'),
  [
    (lambda index: index.pop('weight_map'), 'no weight_map'),
    (lambda index: index.update(weight_map=[1]), 'no weight_map'),
    (lambda index: index['weight_map'].update(a=3), 'no weight_map'),
    (lambda index: index['weight_map'].pop(QUERY), f"not say that '{QUERY}'"),
    (
      lambda index: index['weight_map'].update(a=index['weight_map'][QUERY]),
      "holds 'a'; it does not",
    ),
    (
      lambda index: index['weight_map'].update(
        {QUERY: 'model-00003-of-00003.safetensors'}
      ),
      'does not',
    ),
  ],
)
def test_an_index_that_lies(sharded, change, problem):
  _remap(sharded, change)
  with pytest.raises(ModelError, match=problem):
    load_model(sharded)


def test_shards_that_are_missing_or_doubled(sharded):
  first = sharded / 'model-00001-of-00003.safetensors'
  content = first.read_bytes()
  first.unlink()
  with pytest.raises(ModelError, match='00001-of-00003.*cannot be read'):
    load_model(sharded)
  first.write_bytes((sharded / 'model-00002-of-00003.safetensors').read_bytes())
  with pytest.raises(ModelError, match='one download'):
    load_model(sharded)
  (sharded / SINGLE).write_bytes(content)
  with pytest.raises(ModelError, match='has both'):
    load_model(sharded)


# Arguments.


def test_only_what_a_folder_does_not_say_is_overridden(whole):
  with pytest.raises(ValueError, match='norm_eps must be one of'):
    load_model(whole[0], norm_eps=1.0)
  with pytest.raises(ValueError, match="dtype='float16' must be one of"):
    load_model(whole[0], dtype='float16')
