"""The architectures whose folders are read and written.

| family | read, and written | refused unless as here |
|---|---|---|
| Llama | biases by flag | |
| Mistral | one window for all layers | no `layer_types` |
| Qwen 2 | biases of q, k, v; windows by layer | |
| Qwen 3 | QK-norm, windows by layer, biases by flag | |
| Gemma 2 | soft-caps, windows by layer, biases by flag | causal |
| Gemma 3 | QK-norm, windows by layer, their own rotary, soft-cap of logits, \
biases by flag | causal, no `attn_logit_softcapping` |
| GPT-2 | unscaled attention | no cross-attention, no \
`scale_attn_by_inverse_layer_idx` |
| GPT-NeoX | partial rotary, parallel or not, biases by flag | |

All of them: heads tied or not; SiLU, GELU and its tanh approximation; rotary
embeddings plain, linear, llama3 and yarn; grouped heads and heads of any size
where the family has them. All refuse other activations and kinds of rotary
embeddings, yarn with `truncate` false, heads that turn in part (but for
GPT-NeoX), `is_causal` false, encoder-decoders and `per_layer_config`.
`Family.defaults` and `Family.fixed` have every field. Dropout is not read:
nothing is dropped out here.
"""

from __future__ import annotations

from alignment.models.huggingface.family import Family
from alignment.models.huggingface.gemma import GEMMA2, GEMMA3
from alignment.models.huggingface.gpt2 import GPT2
from alignment.models.huggingface.gpt_neox import GPT_NEOX
from alignment.models.huggingface.llama_like import (
  LLAMA,
  MISTRAL,
  QWEN2,
  QWEN3,
)

FAMILIES: dict[str, Family] = {
  family.architecture: family
  for family in (
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    GEMMA2,
    GEMMA3,
    GPT2,
    GPT_NEOX,
  )
}
"""Architecture, as `config.json` calls it -> family."""
