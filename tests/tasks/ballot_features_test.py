"""Features of BALLOT against the words themselves and against the reward."""

import numpy as np
from scipy.sparse import linalg

from alignment.tasks import ballot, ballot_features, ballot_grammar

HARD = ballot_grammar.DIFFICULTIES['hard']


def _world(difficulty):
  rng = np.random.default_rng(3)
  return ballot.worlds(rng, difficulty, {'test': 12})['test']


def _traits(world):
  return ballot_features.traits(world.completions, world.lengths)


def test_traits_are_what_the_rendered_completion_says():
  world = _world(HARD)
  found = _traits(world)
  letters = ballot_grammar.LETTERS
  rng = np.random.default_rng(0)
  for c in rng.choice(len(found), 60, replace=False):
    text = ballot_grammar.render(world.completions[c, : world.lengths[c]])
    *said, level, _ = text.split()
    expected = {f'has {x}' for x in said} | {f'first {said[0]}'}
    expected |= {f'pair {a}{b}' for a, b in zip(said, said[1:], strict=False)}
    expected |= {f'length {len(said)}', level}
    names = [f'has {x}' for x in letters] + [f'first {x}' for x in letters]
    names += [f'pair {a}{b}' for a in letters for b in letters]
    names += [f'length {n}' for n in range(world.completions.shape[1])]
    names += [f'conf{level}' for level in ballot_grammar.CONFIDENCES]
    assert {n for n, x in zip(names, found[c], strict=True) if x} == expected


def test_rows_times_flat_weights_are_the_rewards():
  world = _world(ballot_grammar.DIFFICULTIES['default'])
  words, traits = ballot_features.words(world.requests), _traits(world)
  rng = np.random.default_rng(1)
  weights = rng.normal(size=(2, words.shape[1] * traits.shape[1]))
  table = ballot_features.rewards(words, traits, weights)
  assert table.shape == (2, 12, len(traits))
  prompt, a, b = rng.integers([[12], [len(traits)], [len(traits)]], size=(3, 9))
  rows = ballot_features.products(words[prompt], traits[a] - traits[b])
  np.testing.assert_allclose(
    rows @ weights.T, (table[:, prompt, a] - table[:, prompt, b]).T
  )


def test_a_linear_reward_can_say_most_of_the_gold_reward_and_not_all():
  """Least squares over every completion, within each prompt."""
  rng = np.random.default_rng(2)
  world = ballot.worlds(
    rng, ballot_grammar.DIFFICULTIES['default'], {'all': 200}
  )['all']
  words, traits = ballot_features.words(world.requests), _traits(world)
  prompt = np.repeat(np.arange(200), 30)
  first, second = rng.integers(len(traits), size=(2, len(prompt)))
  rows = ballot_features.products(words[prompt], traits[first] - traits[second])
  gaps = world.rewards[prompt, first] - world.rewards[prompt, second]
  fitted = rows @ linalg.lsqr(rows, gaps, iter_lim=300)[0]
  left_over = np.var(gaps - fitted) / np.var(gaps)
  assert 0.02 < left_over < 0.2
