"""A model in another form: Hugging Face folder, checkpoint, or adapter.

What the input is, is recognised by its files: a Hugging Face folder, an adapter
of PEFT, the checkpoint of a policy that an experiment saved, or a Llama kept as
a file of arrays. What is written is read back and compared on a probe batch. It
adds nothing to the field.

  A policy that was trained here, for `transformers`; seconds:
    python -m experiments.convert --input=runs/sft/policies/seed_0 \\
      --output_dir=policy
  An adapter merged into the model it is of:
    python -m experiments.convert --input=adapter --base=model \\
      --output_dir=merged

Contrast, written before the run: an export is right if no logit of the probe
batch differs by more than 1e-4 from those of the parameters it was made from
(rounded to its dtype, where that is bfloat16).
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.peft import load_adapters, save_adapters
from alignment.models.huggingface.verify import verify_export
from alignment.models.model import count_params
from alignment.protocols.conversion import Source, read_source
from alignment.protocols.policies import (
  read_checkpoint,
  with_context,
  write_checkpoint,
  write_folder,
)
from alignment.training import storage
from experiments import common
from experiments.common import field
from experiments.common.policy import command


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  output_dir: str = field('', 'What is written; must not be there yet.')
  input: str = field(
    '', 'A Hugging Face folder, checkpoint, adapter, or folder of arrays.'
  )
  base: str = field(
    '', 'Folder of the model an adapter is of. Empty: the one it names.'
  )
  to: Literal['folder', 'checkpoint', 'adapter'] = field(
    'folder',
    'What it becomes; as folder and checkpoint, adapters are merged.',
  )
  dtype: Literal['float32', 'bfloat16'] | None = field(
    None, 'What the weights of a folder are rounded to. If not given: float32.'
  )


def run(config: Config) -> dict[str, Any]:
  """Converts, verifies, says what it did."""
  _check(config)
  source = read_source(config.input, config.base)
  if config.to == 'adapter' and source.lora is None:
    raise ValueError(
      f'--to=adapter: {config.input} is a {source.kind}, which holds whole '
      'weights; adapters come of training with --lora_rank'
    )
  commands = [source.provenance.command, command(config)]
  known = dataclasses.replace(
    source.provenance, command='\n'.join(filter(None, commands))
  )
  print(
    f'{config.input}: {source.kind}, {source.origin.architecture}, '
    f'{count_params(source.params):,} parameters'
  )
  storage.make_directory(pathlib.Path(config.output_dir).absolute().parent)
  difference = WRITE[config.to](config, source, known)
  print(f'{config.output_dir}: {config.to}; {difference}')
  return {
    'kind': source.kind,
    'architecture': source.origin.architecture,
    'parameters': count_params(source.params),
    'verified': difference,
  }


def _check(config: Config) -> None:
  for flag in ('input', 'output_dir'):
    if not getattr(config, flag):
      raise ValueError(f'--{flag}=: must be given')
  if config.dtype and config.to != 'folder':
    raise ValueError(f'--dtype={config.dtype}: only used by --to=folder')
  place = pathlib.Path(config.output_dir)
  if place.exists() and not (place.is_dir() and not any(place.iterdir())):
    raise ValueError(
      f'--output_dir={config.output_dir}: is there and not an empty folder; '
      'choose a new name'
    )


def _folder(config: Config, source: Source, known) -> str:
  params, dtype = source.whole(), config.dtype or 'float32'
  origin = with_context(source.origin)
  write_folder(config.output_dir, origin, params, known, dtype)
  found = verify_export(config.output_dir, origin.config, params, dtype=dtype)
  text = f'max |Δ logit| {found.difference:.2g} after reading it back'
  if dtype == 'bfloat16':
    text += (
      f'; rounding moved logits by at most {found.rounding:.2g} and left '
      f'{found.agreement:.1%} of the likeliest tokens'
    )
  return text


def _checkpoint(config: Config, source: Source, known) -> str:
  params = source.whole()
  write_checkpoint(config.output_dir, source.origin, params, known)
  back = read_checkpoint(config.output_dir)
  if back.origin.config != source.origin.config:
    raise ValueError(f'{config.output_dir}: describes another model')
  _refuse_other(config.output_dir, params, back.params)
  return 'every parameter equal after reading it back'


def _adapter(config: Config, source: Source, known) -> str:
  family, own = FAMILIES[source.origin.architecture], source.origin.config
  save_adapters(
    config.output_dir,
    own,
    source.lora,
    source.adapters,
    family,
    provenance=known,
  )
  back = load_adapters(config.output_dir, own, family)
  again = source._replace(lora=back.lora, adapters=back.adapters)
  _refuse_other(config.output_dir, source.whole(), again.whole(), 1e-6)
  return 'merged weights equal after reading it back'


def _refuse_other(place: str, wanted, found, tolerance: float = 0.0) -> None:
  """Refuses params that differ; adapters may be rounded in their product."""

  def largest(one, other) -> float:
    return float(jnp.abs(jnp.asarray(one) - jnp.asarray(other)).max())

  moved = max(jax.tree.leaves(jax.tree.map(largest, wanted, found)))
  if not np.isfinite(moved) or moved > tolerance:
    raise ValueError(f'{place}: reads back with parameters {moved:.2g} off')


WRITE = {'folder': _folder, 'checkpoint': _checkpoint, 'adapter': _adapter}
"""What it becomes -> how; returns what was verified, in words."""


if __name__ == '__main__':
  common.main(Config, run)
