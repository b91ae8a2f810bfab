"""Three updates of our step and of a torch loop over the same Llama.

The torch side is `transformers` for the model, TRL for the preference losses
and `torch.optim` for the updates; only the loop is written here.
"""

import copy
import dataclasses
import functools

import jax
import numpy as np
import pytest

from alignment.data.layout import Group, capacity_for, lay_out
from alignment.models.transformer import transformer
from alignment.roles.learner import preference_objective, sft_objective
from alignment.training.optimizer import make_optimizer
from alignment.training.step import init_state, make_step
from alignment.types import Frozen
from tests.groups import random_groups
from tests.peers.installed import peer
from tests.peers.llama import as_parameters, random_llama, small_config
from tests.peers.trainer import PER_TOKEN, trl_dpo_loss

pytestmark = pytest.mark.peers

CONFIG = small_config()
STEPS, PAIRS = 3, 5
SGD = {'name': 'sgd', 'learning_rate': 0.05, 'max_grad_norm': None}
ADAMW = {
  'learning_rate': 3e-3,
  'weight_decay': 0.3,
  'max_grad_norm': 0.5,
  'b2': 0.95,
}
CASES = {
  'dpo': (SGD, {}, {}, 0.0),
  'rdpo and nll': (
    ADAMW,
    {'method': 'rdpo', 'nll_coefficient': 0.4},
    {'loss_types': ['robust', 'sft'], 'loss_weights': [1.0, 0.4]},
    0.2,
  ),
  'nca, wpo, ld': (
    SGD,
    {'method': 'nca', 'wpo': True, 'ld_alpha': 0.3},
    {'loss_types': ['nca_pair'], 'use_weighting': True, 'ld_alpha': 0.3},
    0.0,
  ),
}
"""Name -> optimiser, our objective, TRL's settings, flip rate assumed."""
LOGGED = {
  'loss',
  *(f'rewards/{x}' for x in ('chosen', 'rejected', 'margins', 'accuracies')),
  *(f'logps/{x}' for x in ('chosen', 'rejected')),
}


@functools.cache
def llamas():
  """The policy, and a reference near it."""
  torch = peer('torch')
  policy = random_llama(CONFIG, seed=1)
  reference = copy.deepcopy(policy)
  generator = torch.Generator().manual_seed(2)
  with torch.no_grad():
    for weight in reference.parameters():
      noise = torch.empty_like(weight).normal_(0, 0.05, generator=generator)
      weight.add_(noise)
  return policy, reference


def groups_of(step, label_smoothing=0.0) -> list[Group]:
  plain = {'weight': 1.0, 'coefficient': 1.0, 'reference_logps': None}
  plain['label_smoothing'] = label_smoothing
  drawn = random_groups(
    np.random.default_rng(step), PAIRS, vocab_size=CONFIG.vocab_size
  )
  return [dataclasses.replace(group, **plain) for group in drawn]


def train_ours(objective, optimizer, params, frozen, batches):
  """The state after a step per batch, and the metrics of each."""
  transformation = make_optimizer(**optimizer)
  state = init_state(params, transformation)
  step = jax.jit(make_step(objective, transformation))
  metrics = []
  for groups in batches:
    capacity = capacity_for(
      [group for batch in batches for group in batch],
      packing='packed',
      batch_size=PAIRS,
      max_row_length=64,
    )
    batch = lay_out(groups, capacity, 'packed')
    state, found = step(state, frozen, batch, jax.random.key(0))
    assert not found['nonfinite']
    metrics.append(
      {
        name: float(value.mean())
        for name, value in found.items()
        if hasattr(value, 'mean') and name != 'nonfinite_index'
      }
    )
  return state, metrics


def train_theirs(model, optimizer, batches, loss_of):
  """Updates `model` once per batch; returns what loss_of says of each."""
  torch = peer('torch')
  matrices = [w for w in model.parameters() if w.dim() > 1]
  vectors = [w for w in model.parameters() if w.dim() == 1]
  rate = optimizer['learning_rate']
  if optimizer.get('name') == 'sgd':
    update = torch.optim.SGD(model.parameters(), lr=rate)
  else:
    update = torch.optim.AdamW(
      [
        {'params': matrices, 'weight_decay': optimizer['weight_decay']},
        {'params': vectors, 'weight_decay': 0.0},
      ],
      lr=rate,
      betas=(0.9, optimizer['b2']),
    )
  said = []
  for groups in batches:
    update.zero_grad()
    loss, logged = loss_of(model, groups)
    loss.backward()
    if optimizer['max_grad_norm']:
      torch.nn.utils.clip_grad_norm_(
        model.parameters(), optimizer['max_grad_norm']
      )
    update.step()
    said.append({**logged, 'loss': loss.item()})
  return said


def assert_same_run(state, metrics, model, said, moved):
  losses = [step['loss'] for step in said]
  assert np.ptp(losses) > 1e-2  # else the updates would not be compared
  compared = set(metrics[0]) & set(said[0])
  assert len(said[0]) == 1 or compared == LOGGED
  for ours, theirs in zip(metrics, said, strict=True):
    for name in compared:
      assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name
  for (path, ours), theirs, start in zip(
    jax.tree_util.tree_leaves_with_path(state.params),
    jax.tree.leaves(as_parameters(model, CONFIG)),
    jax.tree.leaves(moved),
    strict=True,
  ):
    distance = np.linalg.norm(theirs - start)
    assert distance > 0, path
    assert np.linalg.norm(ours - theirs) <= 1e-3 * distance, path


@pytest.mark.filterwarnings('ignore:.is_gradient_checkpointing')
@pytest.mark.parametrize('name', CASES)
def test_preference_training(name):
  optimizer, objective, settings, label_smoothing = CASES[name]
  policy, reference = (copy.deepcopy(model) for model in llamas())
  start = as_parameters(policy, CONFIG)
  batches = [groups_of(step, label_smoothing) for step in range(STEPS)]
  frozen = Frozen(
    models={'reference': as_parameters(reference, CONFIG)},
    hyper={'beta': np.float32(0.2)},
  )
  state, metrics = train_ours(
    preference_objective(
      transformer(CONFIG),
      **{'method': 'dpo', **objective},
      reference='in_step',
    ),
    optimizer,
    start,
    frozen,
    batches,
  )

  add_head = peer('trl.trainer.utils').add_fused_lm_head
  for model in (policy, reference):
    add_head(model, outputs=PER_TOKEN)
  collate = peer('trl.trainer.dpo_trainer').DataCollatorForPreference(
    pad_token_id=0
  )

  def loss_of(model, groups):
    texts = [
      {
        'prompt_ids': group.prompt.tolist(),
        'chosen_ids': group.completions[group.chosen].tolist(),
        'rejected_ids': group.completions[group.rejected].tolist(),
      }
      for group in groups
    ]
    model.eval()
    return trl_dpo_loss(
      model,
      collate(texts),
      reference=reference,
      beta=0.2,
      label_smoothing=label_smoothing,
      **settings,
    )

  said = train_theirs(policy, optimizer, batches, loss_of)
  assert_same_run(state, metrics, policy, said, start)


def test_supervised_training():
  """The loss of `transformers` itself, the prompt left out by its labels."""
  torch = peer('torch')
  policy = copy.deepcopy(llamas()[0])
  start = as_parameters(policy, CONFIG)
  batches = [groups_of(step) for step in range(STEPS)]
  optimizer = {**SGD, 'max_grad_norm': 0.8}
  state, metrics = train_ours(
    sft_objective(transformer(CONFIG)), optimizer, start, Frozen(), batches
  )
  pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)

  def loss_of(model, groups):
    tokens, labels = [], []
    for group in groups:
      chosen = torch.tensor(group.completions[group.chosen], dtype=torch.long)
      prompt = torch.tensor(group.prompt, dtype=torch.long)
      tokens.append(torch.cat([prompt, chosen]))
      labels.append(torch.cat([torch.full_like(prompt, -100), chosen]))
    seen = pad([torch.ones_like(text) for text in tokens])
    return model(
      pad(tokens), attention_mask=seen, labels=pad(labels, padding_value=-100)
    ).loss, {}

  said = train_theirs(policy, optimizer, batches, loss_of)
  assert_same_run(state, metrics, policy, said, start)
