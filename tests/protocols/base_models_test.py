"""Base models by content: hits, damage, and two writers at once."""

from __future__ import annotations

import shutil
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data.layout import Group
from alignment.protocols.base_models import BaseModels

RECIPE = {'steps': 4, 'seed': 1}


def groups(word=3):
  prompt = np.array([1, 2], np.int32)
  return [Group(prompt, (np.array([word], np.int32),), 0, rejected=0)]


def params(scale=1.0):
  return {'layer': {'w': scale * jnp.arange(6.0).reshape(2, 3)}}


def never():
  raise AssertionError('trained again')


def equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture
def models(tmp_path):
  return BaseModels(tmp_path / 'base', 'width=3')


def test_what_was_trained_once_is_found(models):
  trained = models.get(groups(), RECIPE, params(0.0), params)
  equal(trained, params())
  equal(models.get(groups(), RECIPE, params(0.0), never), params())
  assert len(list(models.directory.iterdir())) == 1


@pytest.mark.parametrize(
  'other',
  [
    lambda m: (m, groups(4), RECIPE),
    lambda m: (m, groups() * 2, RECIPE),
    lambda m: (m, groups(), {**RECIPE, 'seed': 2}),
    lambda m: (m._replace(identity='width=4'), groups(), RECIPE),
  ],
  ids=['data', 'more data', 'recipe', 'model'],
)
def test_anything_else_is_trained(models, other):
  models.get(groups(), RECIPE, params(0.0), params)
  them, data, recipe = other(models)
  found = them.get(data, recipe, params(0.0), lambda: params(2.0))
  equal(found, params(2.0))
  assert len(list(models.directory.iterdir())) == 2


@pytest.mark.parametrize('damage', ['values', 'files', 'all'])
def test_a_damaged_entry_is_trained_again(models, damage):
  models.get(groups(), RECIPE, params(0.0), params)
  (place,) = models.directory.iterdir()
  if damage == 'all':
    shutil.rmtree(place)
    place.mkdir()
  for path in [p for p in place.rglob('*') if p.is_file()]:
    if damage == 'files':
      path.unlink()
    else:
      path.write_bytes(path.read_bytes()[:-3] + b'???')
  with pytest.warns(UserWarning, match='is trained again'):
    found = models.get(groups(), RECIPE, params(0.0), lambda: params(3.0))
  equal(found, params(3.0))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    equal(models.get(groups(), RECIPE, params(0.0), never), params(3.0))


def test_of_two_writers_the_first_to_finish_stays(models):
  meeting = threading.Barrier(2, timeout=20)

  def train():
    meeting.wait()
    return params()

  found = []
  threads = [
    threading.Thread(
      target=lambda: found.append(
        models.get(groups(), RECIPE, params(0.0), train)
      )
    )
    for _ in range(2)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(found) == 2
  assert len(list(models.directory.iterdir())) == 1
  equal(models.get(groups(), RECIPE, params(0.0), never), params())
