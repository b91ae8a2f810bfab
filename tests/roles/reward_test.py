"""The reward objective: values, weights, margins, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data.layout import Group
from alignment.losses.reward import REWARD, per_pair
from alignment.models.config import plain_config
from alignment.models.hashed import hashed_reward
from alignment.models.transformer import transformer
from alignment.roles.reward import reward_objective, stored_margins
from alignment.training.optimizer import make_optimizer
from alignment.training.step import init_state, make_step, total_loss
from tests.roles.worlds import VOCAB, batch_of, frozen, pairs, unit_pairs

KEY = jax.random.key(0)
MODEL = hashed_reward(VOCAB)
RNG = np.random.default_rng(4)


def value(objective, numbers, batch, **hyper):
  return total_loss(objective, batch, frozen(**hyper).hyper, numbers)[0]


def random_rewards(batch):
  rewards = RNG.normal(scale=2.0, size=batch.completions.length.shape)
  return {'logps': jnp.asarray(rewards, jnp.float32)}


def both(numbers, batch):
  """Chosen and rejected of the real pairs, and which rows they are."""
  real = batch.examples.weight[:, 0] > 0
  row, values = np.arange(len(real)), np.asarray(numbers['logps'], float)
  chosen, rejected = (
    values[row, slots[:, 0]][real]
    for slots in (batch.examples.chosen, batch.examples.rejected)
  )
  return chosen, rejected, real


@pytest.mark.parametrize('method', REWARD)
def test_value_is_the_weighted_mean_of_the_loss(method):
  smooth = 0.2 if 'label_smoothing' in per_pair(method) else 0.0
  groups = pairs(11, label_smoothing=smooth, label_prob=0.8)
  batch = batch_of(groups)
  numbers = random_rewards(batch)
  chosen, rejected, real = both(numbers, batch)
  given = {'label_smoothing': smooth, 'label_prob': 0.8}
  given = {k: v for k, v in given.items() if k in per_pair(method)}
  losses = REWARD[method](chosen, rejected, **given)
  weight = batch.examples.weight[real, 0]
  scaled = batch.examples.coefficient[real, 0] * np.asarray(losses)
  found = value(reward_objective(MODEL, method), numbers, batch)
  np.testing.assert_allclose(
    found, np.sum(weight * scaled) / np.sum(weight), rtol=1e-5
  )


def test_margins_and_centring_and_metrics():
  groups = [
    dataclasses.replace(g, rewards=tuple(RNG.normal(size=2)))
    for g in unit_pairs(11)
  ]
  batch = batch_of(groups)
  numbers = random_rewards(batch)
  chosen, rejected, real = both(numbers, batch)
  stored = {
    'logps': np.where(
      np.isnan(batch.completions.reward), 0.0, batch.completions.reward
    )
  }
  good, bad, _ = both(stored, batch)
  objective = reward_objective(
    MODEL, 'bradley_terry', margins=stored_margins, centring=0.03
  )
  terms, metrics = objective.loss(numbers, batch, {})
  losses = np.logaddexp(0, good - bad - chosen + rejected)
  np.testing.assert_allclose(terms['reward'].value(), losses.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    terms['centring'].value(),
    0.03 * np.mean((chosen + rejected) ** 2),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    metrics['rewards/accuracies'].mean(), np.mean(chosen > rejected)
  )
  np.testing.assert_allclose(
    metrics['rewards/margins'].mean(), np.mean(chosen - rejected), rtol=1e-5
  )
  scalar = reward_objective(MODEL, 'bradley_terry')
  np.testing.assert_allclose(
    value(scalar, numbers, batch, margin=0.7),
    np.logaddexp(0, 0.7 - chosen + rejected).mean(),
    rtol=1e-5,
  )


def test_the_gradient_of_the_hashed_reward_is_that_of_a_linear_model():
  groups = [
    dataclasses.replace(
      g, completions=tuple(np.unique(c) for c in g.completions)
    )
    for g in unit_pairs(11, label_smoothing=0.15)
  ]
  batch = batch_of(groups)
  weight = RNG.normal(size=VOCAB)
  params = {'weight': jnp.asarray(weight, jnp.float32)}
  objective = reward_objective(MODEL, 'forward')

  def loss(params):
    return value(objective, objective.numbers(params, batch, KEY), batch)

  bags = np.zeros((11, 2, VOCAB))
  for i, g in enumerate(groups):
    for k, ids in enumerate(g.completions):
      bags[i, k, ids] = len(ids) ** -0.5
  rows = np.arange(11)
  chosen = np.array([g.chosen for g in groups])
  features = bags[rows, chosen] - bags[rows, 1 - chosen]
  p = 1 / (1 + np.exp(-features @ weight))
  pull = -0.7 * p * (1 - p) / (0.85 * p + 0.15 * (1 - p))
  np.testing.assert_allclose(
    jax.grad(loss)(params)['weight'], features.T @ pull / 11, atol=1e-6
  )


def test_a_transformer_with_a_scalar_head_learns_through_flips():
  """Better is the completion with token 1; every tenth label is wrong."""
  rng = np.random.default_rng(0)

  def group(index, flipped):
    texts = rng.integers(2, VOCAB, (2, 4)).astype(np.int32)
    better = int(rng.integers(2))
    texts[better, rng.integers(4)] = 1
    chosen = better ^ int(flipped)
    return Group(
      np.array([2], np.int32), tuple(texts), index, chosen, 1 - chosen,
      label_smoothing=0.1,
    )  # fmt: skip

  train = batch_of([group(i, i % 10 == 0) for i in range(120)], 1)
  test = batch_of([group(i, False) for i in range(100)], 1)
  config = plain_config(VOCAB, width=16, depth=1, num_heads=2)
  model = transformer(dataclasses.replace(config, head='scalar'))
  objective = reward_objective(model, 'backward')
  optimizer = make_optimizer(learning_rate=0.01)
  step = jax.jit(make_step(objective, optimizer), donate_argnums=0)
  state = init_state(model.init(KEY), optimizer)
  for _ in range(50):
    state, metrics = step(state, frozen(), train, KEY)
  numbers = objective.numbers(state.params, test, KEY)
  chosen, rejected, _ = both(numbers, test)
  # Chance is .5; six draws of data and start gave .92 to 1.
  assert np.mean(chosen > rejected) > 0.85
  assert np.isfinite(metrics['loss'].mean())


def test_a_flip_rate_that_the_loss_does_not_take_is_no_number():
  batch = batch_of(unit_pairs(5, label_smoothing=0.1))
  numbers = random_rewards(batch)
  found = value(reward_objective(MODEL, 'bradley_terry'), numbers, batch)
  assert np.isnan(found)


def test_wdpo_gets_the_loss_of_the_swapped_pair():
  batch = batch_of(unit_pairs(11))
  numbers = random_rewards(batch)
  flips = reward_objective(MODEL, 'bradley_terry', aggregate='wdpo')
  assert not flips.separable
  plain = reward_objective(MODEL, 'bradley_terry')
  assert value(flips, numbers, batch) < value(plain, numbers, batch)


@pytest.mark.parametrize('method', REWARD)
def test_poison_in_empty_slots_changes_nothing(method):
  batch = batch_of(unit_pairs(11))
  objective = reward_objective(MODEL, method, centring=0.1)
  numbers = random_rewards(batch)
  empty = batch.examples.weight <= 0
  assert empty.any()
  graded = jax.value_and_grad(lambda n: value(objective, n, batch))
  clean, slope = graded(numbers)
  bad = {'logps': jnp.where(empty, jnp.nan, numbers['logps'])}
  found, found_slope = graded(bad)
  assert np.isfinite(clean) and found == clean
  np.testing.assert_array_equal(found_slope['logps'], slope['logps'])


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'method': 'dpo'}, "'dpo' is none of"),
    ({'method': 'gce', 'aggregate': 'median'}, "'median' is none of"),
    ({'method': 'gce', 'centring': -1.0}, 'centring=-1.0'),
    ({'method': 'forward', 'margins': stored_margins}, 'takes no margin'),
    ({'method': 'gce', 'choices': {'link': 'ramp'}}, 'link=ramp'),
  ],
)
def test_wrong_arguments_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    reward_objective(MODEL, **arguments)


def test_unused_hyperparameters_are_refused():
  batch = batch_of(unit_pairs(5))
  with pytest.raises(ValueError, match='beta=.* does not use it'):
    value(reward_objective(MODEL, 'gce'), random_rewards(batch), batch, beta=1)
