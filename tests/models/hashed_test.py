"""The hashed reward is a linear Bradley-Terry model on normalised bags."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data.layout import Group, capacity_for, lay_out, owners
from alignment.models.hashed import hashed_reward

BUCKETS = 50


def _groups():
  rng = np.random.default_rng(0)

  def features(count):
    drawn = rng.choice(BUCKETS, count, replace=False)
    return drawn.astype(np.int32)

  sizes = [(3, 7), (1, 4), (9, 2)]
  return [
    Group(features(2), (features(a), features(b)), index=i)
    for i, (a, b) in enumerate(sizes)
  ]


@pytest.mark.parametrize('packing', ['padded', 'shared', 'packed'])
def test_reward_is_the_normalised_dot_product(packing):
  groups, model = _groups(), hashed_reward(BUCKETS)
  capacity = capacity_for(groups, packing=packing, batch_size=3)
  batch = lay_out(groups, capacity, packing)
  weight = np.random.default_rng(1).normal(size=BUCKETS)
  params = {'weight': jnp.asarray(weight, jnp.float32)}
  rewards = np.asarray(model.rewards(params, batch))
  token_logps = model.statistics(params, batch, ('token_logps',))
  token_logps = np.asarray(token_logps['token_logps'])
  index, number = owners(batch)
  for row, slot in np.ndindex(index.shape):
    inside = batch.slot[row] == slot
    wanted = 0.0
    if index[row, slot] >= 0:
      ids = groups[index[row, slot]].completions[number[row, slot]]
      bag = np.zeros(BUCKETS)
      bag[ids] = 1.0
      wanted = weight @ bag / np.linalg.norm(bag)
    np.testing.assert_allclose(rewards[row, slot], wanted, rtol=1e-5)
    total = token_logps[row][inside].sum()
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
  np.testing.assert_array_equal(
    token_logps[batch.slot == batch.completions.length.shape[1]], 0.0
  )


def test_starts_at_zero_and_padding_has_no_gradient():
  groups, model = _groups(), hashed_reward(BUCKETS)
  capacity = capacity_for(groups, packing='shared', batch_size=4)
  batch = lay_out(groups, capacity, 'shared')
  params = model.init(jax.random.key(0))
  padding = batch.slot == batch.completions.length.shape[1]
  assert padding.any()
  poisoned = batch.replace(target=np.where(padding, BUCKETS - 1, batch.target))

  def total(params, batch):
    return jnp.sum(
      model.rewards(params, batch) ** 2 + model.rewards(params, batch)
    )

  assert float(total(params, batch)) == 0.0
  grad = jax.grad(total)(params, batch)['weight']
  np.testing.assert_array_equal(
    grad, jax.grad(total)(params, poisoned)['weight']
  )
  used = np.zeros(BUCKETS, bool)
  for group in groups:
    used[np.concatenate(group.completions)] = True
  np.testing.assert_array_equal(np.asarray(grad) != 0, used)


def test_refusals():
  with pytest.raises(ValueError, match='num_buckets must be ≥ 1, got 0'):
    hashed_reward(0)
  model = hashed_reward(3)
  with pytest.raises(ValueError, match='token_entropy'):
    model.statistics({}, None, ('token_entropy',))
