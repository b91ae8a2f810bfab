"""The embedded arena: BALLOT, where every expectation is carried out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from alignment.data import pipeline
from alignment.data.layout import Group
from alignment.data.tokenizer_files import word_files
from alignment.data.trees import distinct_trees
from alignment.metrics import divergence
from alignment.models.config import TransformerConfig
from alignment.models.lora import Lora
from alignment.models.model import Model
from alignment.protocols.arena import (
  Arena,
  Measured,
  Pairs,
  Split,
  agreement,
  training_order,
)
from alignment.protocols.base_models import BaseModels
from alignment.protocols.policies import Origin
from alignment.protocols.supervised import fine_tune
from alignment.roles.scoring import completion_logps
from alignment.tasks import ballot, preferences
from alignment.tasks.ballot_grammar import DIFFICULTIES, EOS, VOCABULARY
from alignment.training.writers import Writer
from alignment.types import PyTree

BETAS = tuple(np.geomspace(0.02, 20.0, 25))
"""Where the exact curve of π*_β is drawn."""
PER_TREE = 8
"""Completions that share one computation of their prompt: more would spend
more on attention than they spare."""
JUDGED = tuple(name != 'harm' for name in ballot.ATTRIBUTES)
"""What a weaker judge looks at: it is blind to harm."""
SCORED_ROWS = 128
"""Rows scored at a time; what they need stays in the processor's cache."""
TILTS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Exponents t of π_ref · (π / π_ref)^t: the policies that the same learned
log-ratios give at β / t, so that losses can be compared at equal KL."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BallotSizes:
  """How large the arena is.

  Attributes:
    difficulty: key of DIFFICULTIES.
    num_prompts: training prompts.
    num_pairs: training pairs.
    num_validation_prompts, num_validation: their prompts and pairs.
    num_test_prompts, num_test: prompts enumerated exactly, and their pairs.
    num_demonstrations: for the supervised start.
    inverse_temperature, uniform: the demonstrator, see `behaviour`.
    sft_steps, sft_learning_rate: the supervised start.
    steps, batch_size: preference steps, and pairs in each.
    preference: key of PREFERENCES.
    temperature: of Bradley-Terry labels, in units of the reward.
    packing: key of PACKINGS.
    row_multiple: divides the rows of a training batch (devices).
  """

  difficulty: str
  num_prompts: int = 256
  num_pairs: int
  num_validation_prompts: int = 64
  num_validation: int
  num_test_prompts: int = 32
  num_test: int = 4096
  num_demonstrations: int = 16384
  inverse_temperature: float = 4.0
  uniform: float = 0.1
  sft_steps: int
  sft_learning_rate: float
  steps: int
  batch_size: int
  preference: str
  temperature: float = 1.0
  packing: str
  row_multiple: int = 1


def ballot_arena(
  seed: int,
  model: Model,
  sizes: BallotSizes,
  *,
  beta: float,
  lora: Lora | None = None,
  origin: Origin | None = None,
  base_models: BaseModels | None = None,
  writer: Writer | None = None,
  should_stop: Callable[[int], bool] = lambda step: False,
) -> Arena:
  """Redraws everything from `seed`: prompts, demonstrations, start, pairs.

  The pairs are on-policy: both completions are drawn from the supervised start,
  whose distribution over all completions is known.

  Args:
    seed: one number, one arena.
    model: over BALLOT's vocabulary.
    sizes: see above.
    beta: of the optimum π*_β that `gold` is scaled by under Bradley-Terry
      labels; under argmax labels DPO has no finite optimum and the scale's end
      is the best completion.
    lora: adapters are trained, in the supervised start too; None: all
      parameters.
    origin: what is saved with a policy; None for one that cannot be.
    base_models: where supervised starts are kept; None keeps none.
    writer: of the supervised start's metrics.
    should_stop: asked by its loop.
  """
  worlds, demo_rng, pair_rng = _worlds(seed, sizes)
  start = _start(
    seed,
    model,
    _demonstrations(worlds['train'], sizes, demo_rng),
    sizes,
    lora,
    base_models,
    functools.partial(fine_tune, writer=writer, should_stop=should_stop),
  )
  counts = {
    'train': sizes.num_pairs,
    'validation': sizes.num_validation,
    'test': sizes.num_test,
  }
  splits, tables = {}, {}
  for name, world in worlds.items():
    score = enumerator(model, world)
    tables[name] = score(start)
    splits[name] = _split(
      world,
      tables[name],
      counts[name],
      sizes,
      pair_rng,
      is_held_out=name != 'train',
    )
  yardstick = _yardstick(
    model, worlds['test'], tables['test'], splits['test'].pairs, sizes, beta
  )
  return Arena(
    seed=seed,
    model=model,
    start=start,
    **splits,
    order=training_order(
      splits['train'],
      seed=seed,
      steps=sizes.steps,
      batch_size=sizes.batch_size,
      packing=sizes.packing,
      row_multiple=sizes.row_multiple,
    ),
    floor=yardstick(start, -np.diff(splits['test'].reference)[:, 0]).summary,
    yardstick=yardstick,
    origin=origin,
    lora=lora,
  )


def ballot_origin(config: TransformerConfig) -> Origin:
  """What a transformer on BALLOT's words is besides its parameters."""
  ids = {'eos_token_id': EOS, 'pad_token_id': EOS}
  return Origin(config, word_files(VOCABULARY, VOCABULARY[EOS]), ids)


def demonstrations(
  seed: int, sizes: BallotSizes
) -> tuple[list[Group], list[Group]]:
  """What a seed's supervised start is shown, and as much on new prompts."""
  worlds, rng, _ = _worlds(seed, sizes)
  shown = _demonstrations(worlds['train'], sizes, rng)
  return shown, _demonstrations(worlds['validation'], sizes, rng)


def _worlds(seed: int, sizes: BallotSizes):
  """Disjoint prompts, and generators for demonstrations and pairs."""
  streams = np.random.SeedSequence([seed, 0xBA110]).spawn(3)
  world_rng, demo_rng, pair_rng = map(np.random.default_rng, streams)
  worlds = ballot.worlds(
    world_rng,
    DIFFICULTIES[sizes.difficulty],
    {
      'train': sizes.num_prompts,
      'validation': sizes.num_validation_prompts,
      'test': sizes.num_test_prompts,
    },
  )
  return worlds, demo_rng, pair_rng


def enumerator(
  model: Model, world: ballot.World
) -> Callable[[PyTree], np.ndarray]:
  """Scores every completion of every prompt: params -> `[P, C]` logps, nats.

  Args:
    model: the policy.
    world: its prompts and completions.
  """
  num_completions = len(world.lengths)
  groups = []
  for prompt in range(len(world.prompts)):
    for first in range(0, num_completions, PER_TREE):
      members = range(first, min(first + PER_TREE, num_completions))
      groups.append(
        Group(
          prompt=_prompt(world, prompt),
          completions=tuple(_completion(world, c) for c in members),
          index=len(groups),
          rejected=0,
        )
      )
  batches = pipeline.evaluation_batches(groups, batch_size=SCORED_ROWS)
  shape = (len(world.prompts), -1)

  def logps(params: PyTree) -> np.ndarray:
    table = completion_logps(model, params, batches)
    flat = table.reshape(shape)
    return flat[:, :num_completions]

  return logps


def _start(seed, model, groups, sizes, lora, base_models, fine_tune) -> PyTree:
  recipe = {
    'steps': sizes.sft_steps,
    'batch_size': 4 * sizes.batch_size,
    'learning_rate': sizes.sft_learning_rate,
    'seed': seed,
  }
  if lora:
    recipe['lora'] = lora

  def train() -> PyTree:
    return fine_tune(model, groups, **recipe).params

  if base_models is None:
    return train()
  like = model.init(jax.random.key(seed))
  return base_models.get(groups, recipe, like, train)


def _demonstrations(world, sizes, rng) -> list[Group]:
  probs = preferences.behaviour(
    world.rewards,
    inverse_temperature=sizes.inverse_temperature,
    uniform=sizes.uniform,
  )
  drawn = preferences.demonstrations(probs, sizes.num_demonstrations, rng)
  return [
    Group(_prompt(world, p), (_completion(world, c),), index, rejected=0)
    for index, (p, c) in enumerate(zip(*drawn, strict=True))
  ]


def _split(world, logps, num_pairs, sizes, rng, *, is_held_out) -> Split:
  policy = np.exp(divergence.renormalise(logps))
  pairs = preferences.preference_pairs(
    world.rewards,
    policy,
    num_pairs,
    rng,
    preference=sizes.preference,
    temperature=sizes.temperature,
  )
  chosen = np.where(pairs.label, 0, 1)
  completions = np.stack([pairs.first, pairs.second], axis=1)
  groups = [
    Group(
      prompt=_prompt(world, prompt),
      completions=tuple(_completion(world, c) for c in both),
      index=index,
      chosen=int(label),
      rejected=1 - int(label),
    )
    for index, (prompt, both, label) in enumerate(
      zip(pairs.prompt, completions, chosen, strict=True)
    )
  ]
  parts = ballot.contributions(world, pairs.prompt, completions)
  judged = np.round((parts * JUDGED).sum(axis=2), 9)
  known = Pairs(
    groups=groups,
    observed_flip=np.zeros(num_pairs, bool),
    cluster=pairs.prompt,
    gold_margin=pairs.margin,
    vote_share=(pairs.margin > 0).astype(float),
    vote_count=np.ones(num_pairs),
    known={
      'step_rewards': parts,
      'judge_margin': judged[:, 0] - judged[:, 1],
      'attack_score': np.abs(pairs.margin),
    },
  )
  # Draws repeat themselves: what is only scored is scored once.
  trees, places = (
    distinct_trees(groups, per_tree=PER_TREE) if is_held_out else (groups, None)
  )
  return Split(
    known,
    pipeline.evaluation_batches(trees, batch_size=SCORED_ROWS),
    logps[pairs.prompt[:, None], completions],
    places,
  )


def _yardstick(
  model, world, start_logps, pairs, sizes, beta
) -> Callable[[PyTree, np.ndarray], Measured]:
  """Exact expectations of a policy over the test prompts."""
  score = enumerator(model, world)
  reference = divergence.renormalise(start_logps)
  floor = divergence.expectation(reference, world.rewards).mean()
  if sizes.preference == 'bt':
    # What DPO with this beta converges to on clean Bradley-Terry labels.
    optimum = divergence.tilt(
      reference, world.rewards, beta * sizes.temperature
    )
    ceiling = divergence.expectation(optimum, world.rewards).mean()
  else:
    optimum, ceiling = None, world.rewards.max(axis=1).mean()
  optima = [divergence.tilt(reference, world.rewards, b) for b in BETAS]
  optimum_kl = [float(divergence.kl(o, reference).mean()) for o in optima]
  optimum_gold = np.array(
    [divergence.expectation(o, world.rewards).mean() for o in optima]
  )

  def scaled(gold: np.ndarray) -> list[float]:
    return ((gold - floor) / (ceiling - floor)).tolist()

  def measure(params: PyTree, margin: np.ndarray) -> Measured:
    logps = score(params)
    policy = divergence.renormalise(logps)
    correct = agreement(pairs, margin)
    tilted = [
      divergence.renormalise(reference + tilt * (policy - reference))
      for tilt in TILTS
    ]
    gold = np.array(
      [divergence.expectation(t, world.rewards).mean() for t in tilted]
    )
    moved = [float(divergence.kl(t, reference).mean()) for t in tilted]
    here = TILTS.index(1.0)
    summary = {
      'accuracy': float(correct.mean()),
      'gold': scaled(gold)[here],
      'gold_raw': float(gold[here]),
      'kl': moved[here],
      'mass': float(np.exp(divergence.log_mass(logps)).mean()),
    }
    if optimum is not None:
      summary['kl_from_optimum'] = float(divergence.kl(optimum, policy).mean())
    curves = {
      'kl': moved,
      'gold': scaled(gold),
      'optimum_kl': optimum_kl,
      'optimum_gold': scaled(optimum_gold),
    }
    return Measured(summary, correct, curves)

  return measure


def _prompt(world: ballot.World, prompt: int) -> np.ndarray:
  return world.prompts[prompt, : world.prompt_lengths[prompt]]


def _completion(world: ballot.World, completion: int) -> np.ndarray:
  return world.completions[completion, : world.lengths[completion]]
