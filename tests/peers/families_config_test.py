"""Fields of `config.json` against the config classes of `transformers`."""

import dataclasses

import pytest

from alignment.models.huggingface.families import FAMILIES
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

HARMLESS = {
  'attention_dropout',
  'attn_pdrop',
  'bos_token_id',
  'classifier_dropout',
  'embd_pdrop',
  'eos_token_id',
  'hidden_dropout',
  'initializer_range',
  'is_decoder',
  'pad_token_id',
  'pretraining_tp',
  'reorder_and_upcast_attn',
  'resid_pdrop',
  'summary_activation',
  'summary_first_dropout',
  'summary_proj_to_labels',
  'summary_type',
  'summary_use_proj',
  'use_cache',
}
"""Fields that change no logit of a text: of training, of other heads, of how
the same product is summed."""


def class_fields(architecture):
  """Field -> default, without those that every config of theirs has."""
  transformers = peer('transformers')
  config = getattr(transformers, architecture).config_class
  common = dataclasses.fields(transformers.PreTrainedConfig)
  own = {field.name: field.default for field in dataclasses.fields(config)}
  return {
    name: default
    for name, default in own.items()
    if name not in {field.name for field in common}
  }


@pytest.mark.parametrize('architecture', FAMILIES)
def test_defaults(architecture):
  family, theirs = FAMILIES[architecture], class_fields(architecture)
  # An own size of heads is read off configs of Qwen 2, which do not name it.
  named = {name for name in family.defaults if name in theirs}
  assert set(family.defaults) - named <= {'head_dim'}
  for name in named:
    assert family.defaults[name] == theirs[name], name
  for name in family.fixed:
    if name in theirs:
      assert theirs[name] in family.fixed[name], name


@pytest.mark.parametrize('architecture', FAMILIES)
def test_no_field_is_passed_over(architecture):
  """A field that appears there has to be honoured, refused or harmless."""
  family = FAMILIES[architecture]
  known = {*family.defaults, *family.fixed, *HARMLESS}
  assert set(class_fields(architecture)) - known == set()
  config = getattr(peer('transformers'), architecture).config_class
  assert config.model_type == family.model_type


@pytest.mark.parametrize('architecture', FAMILIES)
def test_a_config_without_fields_is_theirs(architecture):
  """Derived values too: kinds of layers, heads, rotary embeddings."""
  family = FAMILIES[architecture]
  written = getattr(peer('transformers'), architecture).config_class().to_dict()
  assert family.read({}) == family.read(written)
