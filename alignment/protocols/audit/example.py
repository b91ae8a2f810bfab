"""Crowd votes of a known making, for timing and for trying an audit."""

from __future__ import annotations

import numpy as np

from alignment.data.records import Vote, VotedPair

NUM_TITLES, TEXTS_PER_TITLE, VOTES_PER_PAIR = 12, 66, 5
_WORDS = np.array([f'w{i}' for i in range(4000)])


def voted_pairs(num_pairs: int, seed: int) -> list[VotedPair]:
  """Pairs of texts of a title, each judged by five workers of a crowd.

  Texts have 10 to 150 words; a text's worth is its length and what its words
  are worth. A worker errs the likelier, the closer two texts are, and workers
  differ: a few vote often, most a handful of times.

  Args:
    num_pairs: ≥ 1.
    seed: another seed, other texts, pairs and votes.
  """
  rng = np.random.default_rng(seed)
  num_texts = NUM_TITLES * TEXTS_PER_TITLE
  lengths = rng.integers(10, 150, num_texts)
  drawn = [rng.zipf(1.3, n) % len(_WORDS) for n in lengths]
  worth_of_word = rng.normal(size=len(_WORDS))
  worth = np.array([worth_of_word[words].mean() for words in drawn])
  worth = worth / worth.std() + 0.5 * np.log(lengths)
  texts = [' '.join(_WORDS[words]) for words in drawn]
  title = rng.integers(0, NUM_TITLES, num_pairs)
  first = rng.integers(0, TEXTS_PER_TITLE, num_pairs)
  step = rng.integers(1, TEXTS_PER_TITLE, num_pairs)
  second = (first + step) % TEXTS_PER_TITLE
  ends = title[:, None] * TEXTS_PER_TITLE + np.stack([first, second], axis=1)
  diligence = rng.gamma(0.3, 1.0, 3800)
  skill = rng.beta(6, 2, 3800)
  shape = num_pairs, VOTES_PER_PAIR
  worker = rng.choice(3800, shape, p=diligence / diligence.sum())
  gap = worth[ends[:, 0]] - worth[ends[:, 1]]
  says_first = rng.random(shape) < 1 / (1 + np.exp(-2 * gap[:, None]))
  # Who is not attentive tosses a coin.
  says_first = np.where(
    rng.random(shape) < skill[worker], says_first, rng.random(shape) < 0.5
  )
  return [
    VotedPair(
      prompt=f'title {title[i]}\n',
      first=texts[ends[i, 0]],
      second=texts[ends[i, 1]],
      votes=tuple(
        Vote(int(w), 1 if said else -1)
        for w, said in dict(zip(worker[i], says_first[i], strict=True)).items()
      ),
      index=i,
      group=f'title {title[i]}',
    )
    for i in range(num_pairs)
  ]
