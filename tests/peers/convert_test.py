"""The array file of a pretrained model, as a folder in `transformers`."""

import numpy as np
import pytest

from experiments import convert
from tests.peers.installed import peer

pytestmark = [pytest.mark.peers, pytest.mark.shared]
STORY = (
  'Once upon a time, there was a little girl named Lily. She loved to play '
  'outside in the park. One day, she saw a big dog. The dog was very friendly '
  'and wanted to play with her.'
)


def test_a_pretrained_file_of_arrays_tells_stories(shared_dir, tmp_path):
  transformers, torch = peer('transformers'), peer('torch')
  source = shared_dir / 'data' / 'models' / 'babyllama_tok361'
  folder = str(tmp_path / 'model')
  convert.run(convert.Config(input=str(source), output_dir=folder))
  model = transformers.AutoModelForCausalLM.from_pretrained(folder)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  story = tokenizer(STORY, return_tensors='pt').input_ids
  with torch.no_grad():
    nats = float(model(story, labels=story).loss)
    told = model.generate(story[:, :18], max_new_tokens=60, do_sample=False)
  # One token a character; SOURCE.md says .21, of text by another hand.
  np.testing.assert_allclose(nats, 0.21, atol=0.05)
  text = tokenizer.decode(told[0], skip_special_tokens=True)
  assert text.strip().startswith('Once upon a time, there was a little')
