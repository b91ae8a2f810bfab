"""Policies that start from a model folder: what they read, know and refuse."""

import jax
import numpy as np
import pytest

from alignment.data.layout import Group
from alignment.protocols.folder_policies import folder_policy, template_of
from alignment.protocols.supervised import fine_tune
from alignment.training.mesh import make_mesh
from tests.experiments import model_folders

LENGTHS = {'max_prompt_length': 24, 'max_completion_length': 40}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return model_folders.write(tmp_path_factory.mktemp('base') / 'model')


def test_start_tokenizer_and_origin_are_the_folder_s(model):
  policy = folder_policy(model, **LENGTHS, remat=True)
  jax.tree.map(
    np.testing.assert_array_equal, policy.params, model_folders.params_of(7)
  )
  text = 'Say naïve. '
  ids = policy.reading.tokenizer.encode(text)
  assert bytes(ids.tolist()).decode() == text
  assert policy.origin.folder == model and policy.origin.is_start
  assert policy.origin.config.remat
  assert 'Human' in template_of(model).source


def test_lengths_beyond_the_context(model):
  longer = {**LENGTHS, 'max_prompt_length': 25}
  with pytest.raises(ValueError, match='25, --max_c.*=40: together must be at'):
    folder_policy(model, **longer)


@pytest.mark.slow
def test_fine_tuning_on_a_mesh_gives_the_same(model):
  rng = np.random.default_rng(4)
  groups = [
    Group(
      rng.integers(0, 256, 5).astype(np.int32),
      (rng.integers(0, 256, 7).astype(np.int32),),
      index,
      rejected=0,
    )
    for index in range(16)
  ]

  def tuned(mesh):
    policy = folder_policy(model, **LENGTHS, mesh=mesh)
    return fine_tune(
      policy.model,
      groups,
      steps=3,
      batch_size=8,
      learning_rate=1e-3,
      seed=1,
      start=policy.params,
      mesh=mesh,
    ).params

  spread = tuned(make_mesh('data=2,fsdp=2'))
  # Adam's first steps are signs of the gradient: where it is nearly 0, rounding
  # decides them, so only most parameters agree to float32.
  close = jax.tree.map(
    lambda a, b: np.isclose(a, b, atol=1e-5), spread, tuned(None)
  )
  share = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(close)])
  assert share.mean() > 0.99
