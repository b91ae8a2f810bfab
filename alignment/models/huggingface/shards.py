"""Which tensors a model folder holds, and in which of its files."""

from __future__ import annotations

import os
import pathlib

from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.folder_files import file_inside, read_json
from alignment.models.huggingface.tensor_file import Stored, read_header

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
_UNREAD = ('.bin', '.pt', '.pth', '.ckpt', '.h5', '.msgpack', '.gguf')


def find_tensors(folder: pathlib.Path) -> dict[str, Stored]:
  """Name -> where it lies, of `model.safetensors` or of the shards of an index.

  Only headers are read.

  Raises:
    ModelError: no safetensors, both kinds, a shard that is missing, damaged or
      outside of the folder, a tensor twice, an index that says something else
      than the shards do.
  """
  single, index = (os.path.lexists(folder / name) for name in (SINGLE, INDEX))
  if single and index:
    raise ModelError(
      str(folder), f'has both {SINGLE} and {INDEX}', 'Keep one of them'
    )
  if single:
    return read_header(file_inside(folder, SINGLE))
  if not index:
    raise _no_weights(folder)
  place = str(folder / INDEX)
  weight_map = read_json(folder, INDEX).get('weight_map')
  if not isinstance(weight_map, dict) or not all(
    isinstance(shard, str) for shard in weight_map.values()
  ):
    raise ModelError(
      place, 'has no weight_map of names to files', 'Download it again'
    )
  paths = {
    shard: file_inside(folder, shard)
    for shard in dict.fromkeys(weight_map.values())
  }
  found: dict[str, Stored] = {}
  for shard, path in paths.items():
    for name, stored in read_header(path).items():
      if weight_map.get(name) != shard:
        raise ModelError(
          place,
          f'does not say that {name!r:.200} lies in {shard!r}',
          'Take the index and the shards of one download',
        )
      found[name] = stored
  lost = [name for name in weight_map if name not in found]
  if lost:
    raise ModelError(
      place,
      f'says that {weight_map[lost[0]]!r} holds {lost[0]!r}; it does not',
      'Take the index and the shards of one download',
    )
  return found


def _no_weights(folder: pathlib.Path) -> ModelError:
  others = sorted(name for name in os.listdir(folder) if name.endswith(_UNREAD))
  if others:
    return ModelError(
      str(folder),
      f'weights are in {", ".join(others[:3])}, of formats that are not read '
      '(pickles can run code)',
      f'Convert them to {SINGLE}, for instance with save_pretrained',
    )
  return ModelError(
    str(folder), f'has no {SINGLE} and no {INDEX}', 'Download the weights'
  )
