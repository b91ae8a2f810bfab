"""Models of every family against `transformers`: folders in, trees, out."""

import functools

import jax
import numpy as np
import pytest

from alignment.data.layout import capacity_for, lay_out
from alignment.models.decoding import generate
from alignment.models.huggingface.card import Provenance
from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.load import load_model
from alignment.models.huggingface.save import save_model
from alignment.models.logits import next_token_logits
from alignment.models.transformer import transformer
from tests.groups import random_groups
from tests.models.trees import per_completion
from tests.peers.family_cases import CASES, random_model
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

TREES = (
  'llama, llama3, biases',
  'mistral, window',
  'qwen2, some layers windowed, yarn',
  'qwen3, tied, biases, window',
  'gemma2, soft-caps',
  'gemma3',
  'gpt2',
  'gpt_neox',
)
VOCABULARY = 37
TOKENS = np.random.default_rng(4).integers(
  VOCABULARY, size=(2, 40), dtype=np.int32
)
BOUND = 1e-4
"""Float32 sums in another order; logits are of size 1 to 10."""


@pytest.fixture(scope='module')
def loaded_of(tmp_path_factory):
  """case -> what we load of the folder that `transformers` writes of it."""

  @functools.cache
  def load(case):
    folder = tmp_path_factory.mktemp('model')
    random_model(case).save_pretrained(folder)
    return load_model(folder)

  return load


def logits_of(model, tokens):
  """Theirs, `[B, T, V]`."""
  torch = peer('torch')
  with torch.no_grad():
    return model(torch.tensor(tokens, dtype=torch.long)).logits


def test_every_family_has_several_models():
  found = [architecture for architecture, _ in CASES.values()]
  assert all(found.count(architecture) >= 2 for architecture in FAMILIES)
  assert {CASES[case][0] for case in TREES} == set(FAMILIES)


@pytest.mark.parametrize('case', CASES)
def test_logits(case, loaded_of):
  loaded = loaded_of(case)
  assert loaded.family.architecture == CASES[case][0]
  got = jax.jit(next_token_logits(loaded.config))(loaded.params, TOKENS)
  want = logits_of(random_model(case), TOKENS).numpy()
  assert want.std() > 1
  assert np.abs(got - want).max() <= BOUND


@pytest.mark.parametrize('case', CASES)
def test_greedy_continuations(case, loaded_of):
  """32 tokens after prompts of 8 and 5 tokens, as far as no two are level."""
  torch, theirs = peer('torch'), random_model(case)
  loaded = loaded_of(case)
  lengths, count = np.array([8, 5], np.int32), 32
  prompts = np.where(np.arange(8) < lengths[:, None], TOKENS[:, :8], 0)
  got = generate(loaded.config)(
    loaded.params, prompts, lengths, max_new_tokens=count, eos_ids=()
  )
  for row, length in enumerate(lengths):
    prompt = torch.tensor(prompts[row : row + 1, :length], dtype=torch.long)
    text = theirs.generate(
      prompt,
      attention_mask=torch.ones_like(prompt),
      max_new_tokens=count,
      do_sample=False,
    )
    best = logits_of(theirs, text.numpy())[0, length - 1 : -1].topk(2).values
    clear = (best[:, 0] - best[:, 1] > BOUND).numpy()
    same = count if clear.all() else int(clear.argmin())
    assert same >= 16
    want = text[0, length:].numpy()
    np.testing.assert_array_equal(got.tokens[row, :same], want[:same])


@pytest.mark.parametrize('case', TREES)
def test_texts_that_share_rows_and_prompts(case, loaded_of):
  loaded = loaded_of(case)
  groups = random_groups(
    np.random.default_rng(8),
    5,
    completions=(2, 3),
    prompt=(1, 14),
    completion=(1, 10),
    vocab_size=VOCABULARY,
  )
  capacity = capacity_for(
    groups, packing='packed', batch_size=len(groups), max_row_length=80
  )
  batch = lay_out(groups, capacity, 'packed')
  assert batch.group.max() > 1
  statistics = transformer(loaded.config).statistics
  got = jax.jit(lambda params: statistics(params, batch, ('token_logps',)))(
    loaded.params
  )
  found = per_completion(groups, batch, got['token_logps'])
  for group in groups:
    for k, completion in enumerate(group.completions):
      text = np.concatenate([group.prompt, completion])
      logits = logits_of(random_model(case), text[None])[0]
      logps = logits.log_softmax(-1)[len(group.prompt) - 1 : -1]
      want = logps[range(len(completion)), completion.tolist()]
      gap = found[group.index, k] - want.numpy()
      assert np.abs(gap).max() <= BOUND


@pytest.mark.parametrize('case', CASES)
def test_the_way_back(case, loaded_of, tmp_path):
  """Ours loads there without a complaint, the same to the bit."""
  torch, transformers = peer('torch'), peer('transformers')
  config, params, family, _ = loaded_of(case)
  provenance = Provenance('none', 'none', 'none', (0,))
  folder = save_model(
    tmp_path / 'ours', config, params, family, provenance=provenance
  )
  theirs = random_model(case)
  back, complaints = getattr(transformers, family.architecture).from_pretrained(
    folder, attn_implementation='eager', output_loading_info=True
  )
  assert not any(complaints.values()), complaints
  weights, wanted = back.state_dict(), theirs.state_dict()
  assert set(weights) == set(wanted)
  assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
  assert torch.equal(logits_of(back, TOKENS), logits_of(theirs, TOKENS))
