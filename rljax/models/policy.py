"""The model adapter: the only code that reads `Batch.inputs`. apply -> TokenStats.

A `Policy` is pure functions over parameters and is hashable, so it may be a static argument. The
trainer calls `stats`, the sampler `prefill` and `decode`; all run the same transformer.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rljax import ops, types
from rljax.models import transformer
from rljax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Policy:
  """A decoder as pure functions.

  Attributes:
    cfg: the transformer's sizes.
    temperature: at which the trainer evaluates log-probabilities; that of the sampler, so that
      ratios compare the same distribution.
  """

  cfg: transformer.TransformerConfig
  temperature: float = 1.0

  @property
  def module(self) -> transformer.Transformer:
    return transformer.Transformer(self.cfg)

  def init(self, key: Array) -> PyTree:
    """Random parameters."""
    return jax.jit(self.module.init)(key, jnp.zeros((1, 2), jnp.int32))["params"]

  def head(self, params: PyTree) -> Array:
    return transformer.unembed(self.cfg, params)

  def stats(self, params: PyTree, batch: types.Batch) -> types.TokenStats:
    """Log-probability and entropy of every action.

    Args:
      batch: `inputs` holds tokens_BS int32 (right-padded) and action_pos_BT int32, the position
        whose hidden state predicts each action.
    """
    tokens_BS, pos_BT = batch.inputs["tokens_BS"], batch.inputs["action_pos_BT"]
    hidden_BSD, _ = self.module.apply({"params": params}, tokens_BS)
    hidden_BTD = jnp.take_along_axis(hidden_BSD, pos_BT[:, :, None], axis=1)
    logp_BT, entropy_BT = ops.token_logprobs(
        hidden_BTD, self.head(params), batch.actions_BT, temperature=self.temperature,
        return_entropy=True)
    return types.TokenStats(logp_BT, entropy_BT)

  def prefill(self, params: PyTree, tokens_BP: Array, length_B: Array, capacity: int):
    """Hidden state of the last prompt token [B, D], and a cache of that capacity."""
    hidden_BPD, cache = self.module.apply({"params": params}, tokens_BP, keep_kv=True)
    last_B1 = jnp.maximum(length_B - 1, 0)[:, None, None]
    hidden_BD = jnp.take_along_axis(hidden_BPD, last_B1, axis=1)[:, 0]
    return hidden_BD, transformer.widen(cache, capacity)

  def decode(self, params: PyTree, token_B: Array, position_B: Array, cache):
    """One more token per row: hidden [B, D] and the cache."""
    hidden_B1D, cache = self.module.apply(
        {"params": params}, token_B[:, None], position_B[:, None], cache)
    return hidden_B1D[:, 0], cache

  def logits(self, params: PyTree, hidden_BD: Array) -> Array:
    """[B, V] float32, for the sampler: one position per row."""
    return jnp.einsum("bd,vd->bv", hidden_BD, self.head(params).astype(hidden_BD.dtype),
                      preferred_element_type=jnp.float32)


def decoder(vocab: int, *, width: int = 128, layers: int = 3, heads: int = 4, kv_heads: int = 0,
            head_dim: int = 0, mlp: int = 0, activation: str = "silu", rope_theta: float = 10000.0,
            tied: bool = True, scan: bool = True, remat: bool = False, dtype: str = "float32",
            temperature: float = 1.0) -> Policy:
  """A decoder of these sizes; kv_heads 0 = heads, mlp 0 = the gated size of 8 * width^2 weights."""
  cfg = transformer.TransformerConfig(
      vocab=vocab, width=width, layers=layers, heads=heads, kv_heads=kv_heads or heads,
      head_dim=head_dim, mlp=mlp or -(-8 * width // 3 // 8) * 8, activation=activation,
      rope_theta=rope_theta, tied=tied, scan=scan, remat=remat, dtype=dtype)
  return Policy(cfg, temperature)


def count(params: PyTree) -> int:
  """Number of parameters."""
  return sum(x.size for x in jax.tree.leaves(params))
