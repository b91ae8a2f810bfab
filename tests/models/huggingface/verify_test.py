import jax
import ml_dtypes
import numpy as np
import pytest

from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.verify import verify_export
from alignment.models.logits import next_token_logits
from tests.models.huggingface import folders


@pytest.mark.parametrize('head', ['scalar', 'both'])
def test_a_good_export(tmp_path, head):
  config = folders.small_config(head=head, depth=1, context=5)
  params = folders.write_folder(tmp_path / 'm', config)
  report = verify_export(tmp_path / 'm', config, params)
  assert report == (0.0, 0.0, 1.0)  # the same numbers in the same program


def test_what_rounding_changes_is_told(tmp_path):
  config = folders.small_config(depth=1, context=6)
  params = folders.write_folder(tmp_path / 'm', config, dtype='bfloat16')
  report = verify_export(tmp_path / 'm', config, params, dtype='bfloat16')
  assert report.difference == 0.0
  rounded = jax.tree.map(
    lambda leaf: leaf.astype(ml_dtypes.bfloat16).astype(np.float32), params
  )
  tokens = np.random.default_rng(20).integers(31, size=(2, 6), dtype=np.int32)
  logits = jax.jit(next_token_logits(config))
  one, other = (np.asarray(logits(each, tokens)) for each in (params, rounded))
  # Two programs of the same sums: they agree to rounding in float32.
  np.testing.assert_allclose(report.rounding, abs(one - other).max(), atol=1e-4)
  assert report.rounding > 0.01
  agreement = (one.argmax(-1) == other.argmax(-1)).mean()
  assert report.agreement == pytest.approx(agreement)
  with pytest.raises(ModelError, match='outputs differ by'):
    verify_export(tmp_path / 'm', config, params)  # said to be float32


@pytest.mark.parametrize(
  ('head', 'name'),
  [
    ('vocabulary', 'model.layers.0.self_attn.k_proj.weight'),
    ('scalar', 'score.weight'),
    ('both', 'score.weight'),
    ('both', 'lm_head.weight'),
  ],
)
def test_one_number_that_changed(tmp_path, head, name):
  config = folders.small_config(head=head, depth=1, context=5)
  params = folders.write_folder(tmp_path / 'm', config)

  def change(tensors):
    tensors[name][0] += 0.5

  folders.edit_tensors(tmp_path / 'm', change)
  with pytest.raises(ModelError, match='outputs differ by'):
    verify_export(tmp_path / 'm', config, params)


def test_another_description(tmp_path):
  config = folders.small_config(depth=1, context=5)
  params = folders.write_folder(tmp_path / 'm', config)
  folders.edit_json(tmp_path / 'm', {'rms_norm_eps': 1e-5})
  with pytest.raises(ModelError, match='norm_eps read back differently'):
    verify_export(tmp_path / 'm', config, params)
