"""The transformer against the Llama of `transformers`, same weights."""

import functools

import jax
import numpy as np
import pytest

from alignment.data.layout import capacity_for, collect, lay_out, owners
from alignment.data.packing import PACKINGS
from alignment.models.rotary import Rotary
from alignment.models.transformer import transformer
from alignment.roles.policy import completion_numbers
from tests.groups import random_groups
from tests.models.trees import NAMES, per_completion
from tests.peers.installed import peer
from tests.peers.llama import as_parameters, random_llama, small_config

pytestmark = pytest.mark.peers

CONFIGS = {
  'grouped': small_config(),
  'grouped, tied': small_config(tied_head=True, rotary=Rotary(theta=150.0)),
  'full': small_config(num_heads=5, num_kv_heads=5, rotary=Rotary(theta=150.0)),
  'full, tied': small_config(num_heads=5, num_kv_heads=5, tied_head=True),
}
NUM_GROUPS = 6


@functools.cache
def llama(name):
  return random_llama(CONFIGS[name], seed=len(name))


@functools.cache
def groups():
  """Long enough that both rotary bases turn every feature visibly."""
  return random_groups(
    np.random.default_rng(8),
    NUM_GROUPS,
    completions=(2, 3),
    prompt=(1, 20),
    completion=(1, 12),
    vocab_size=CONFIGS['grouped'].vocab_size,
  )


def laid_out(packing):
  capacity = capacity_for(
    groups(),
    packing=packing,
    batch_size=NUM_GROUPS,
    max_row_length=100 if packing == 'packed' else None,
  )
  return lay_out(groups(), capacity, packing)


def predictions(model, prompt, completion):
  """Log-probabilities `[t, V]` before each token of one text alone."""
  torch = peer('torch')
  tokens = torch.tensor(np.concatenate([prompt, completion]), dtype=torch.long)
  logits = model(tokens[None]).logits[0, len(prompt) - 1 : -1]
  return torch.log_softmax(logits, dim=-1)


def chosen(logps, completion):
  return logps[range(len(completion)), completion.tolist()]


@pytest.mark.parametrize(
  'name, packing',
  [('grouped', packing) for packing in sorted(PACKINGS)]
  + [(name, 'packed') for name in CONFIGS if name != 'grouped'],
)
def test_statistics_of_tokens_in_every_layout(name, packing):
  theirs, config = llama(name), CONFIGS[name]
  model = transformer(config)
  batch = laid_out(packing)
  assert packing != 'packed' or batch.group.max() > 1
  got = jax.jit(lambda p, b: model.statistics(p, b, NAMES))(
    as_parameters(theirs, config), batch
  )
  found = {n: per_completion(groups(), batch, got[n]) for n in NAMES}
  for group in groups():
    for k, completion in enumerate(group.completions):
      with peer('torch').no_grad():
        logps = predictions(theirs, group.prompt, completion)
      want = {
        'token_logps': chosen(logps, completion),
        'token_entropy': -(logps.exp() * logps).sum(-1),
        'token_log_sum_squares': (2 * logps).logsumexp(-1),
      }
      for n in NAMES:
        gap = found[n][group.index, k] - want[n].numpy()
        assert np.abs(gap).max() <= 1e-4, n


@pytest.mark.parametrize('name', ['grouped', 'full, tied'])
def test_logps_and_every_gradient(name):
  """A random combination of summed log-probabilities, differentiated."""
  theirs, config = llama(name), CONFIGS[name]
  scales = np.random.default_rng(3).normal(size=(NUM_GROUPS, 3))
  want = np.full((NUM_GROUPS, 3), np.nan)
  total = 0.0
  for group in groups():
    for k, completion in enumerate(group.completions):
      logps = predictions(theirs, group.prompt, completion)
      logps = chosen(logps, completion).sum()
      want[group.index, k] = logps.item()
      total = total + scales[group.index, k] * logps
  theirs.zero_grad()
  total.backward()
  expected = as_parameters(theirs, config, lambda weight: weight.grad)

  batch = laid_out('packed')
  index, number = owners(batch)
  scale = np.where(index >= 0, scales[index, number], 0.0)
  numbers = completion_numbers(transformer(config))

  def combination(params):
    logps = numbers(params, batch, None)['logps']
    return (scale * logps).sum(), logps

  params = as_parameters(theirs, config)
  gradient, logps = jax.jit(jax.grad(combination, has_aux=True))(params)
  found = np.full((NUM_GROUPS, 3), np.nan)
  collect(batch, logps, found)
  np.testing.assert_allclose(found, want, atol=1e-4, rtol=0)
  for (path, ours), other in zip(
    jax.tree_util.tree_leaves_with_path(gradient),
    jax.tree.leaves(expected),
    strict=True,
  ):
    size = np.linalg.norm(other)
    assert size > 1e-3, path
    # Float32 sums in another order: by the norm of the leaf.
    assert np.linalg.norm(ours - other) <= 1e-4 * size, path
