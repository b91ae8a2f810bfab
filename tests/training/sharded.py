"""What steps on one and on eight devices are compared with: a model that every
axis divides, and SGD, as Adam would hide a gradient of another scale."""

from alignment.models.config import TransformerConfig
from alignment.models.transformer import transformer
from alignment.training.optimizer import make_optimizer
from tests.roles.worlds import VOCAB

SGD = make_optimizer(name='sgd', learning_rate=1.0, max_grad_norm=None)
MODEL = transformer(
  TransformerConfig(
    vocab_size=VOCAB,
    width=16,
    depth=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=32,
    scan_layers=True,
  )
)
