"""Hot operations, each one function over several implementations: `implementation=` chooses.

The plain-XLA references and the kernels stand side by side in `rljax_kernels`, held to one contract
by tests/kernels; the rest of rljax calls them through here only. `implementation=None` takes a
kernel where it can be used and pays, and falls back to the reference; a named implementation that
cannot be used is a ValueError. Under an active `sharding.Layout` of several devices each device
works on its own tokens, and on its own part of the vocabulary if the layout splits that.
"""

from rljax import sharding
from rljax.types import Array
from rljax_kernels.gae import op as gae_op
from rljax_kernels.group_advantage import op as group_advantage_op
from rljax_kernels.pg_loss import op as pg_loss_op
from rljax_kernels.token_logprob import op as token_logprob_op

group_advantages = group_advantage_op.group_advantages
gae = gae_op.gae
recurrence = gae_op.recurrence
pg_token_loss = pg_loss_op.pg_token_loss


def token_logprobs(hidden_BTD: Array, unembed: Array, targets_BT: Array, *,
                   temperature: float | Array = 1.0, softcap: float = 0.0,
                   return_entropy: bool = False, top_k: int = 0, transposed: bool = False,
                   implementation: str | None = None):
  """log softmax(softcap(h W^T) / temperature)[target], without ever holding [B, T, V].

  See `rljax_kernels.token_logprob.op.token_logprobs`.

  Args:
    hidden_BTD: float [B, T, D], final hidden states, after the last norm.
    unembed: float [V, D], or [D, V] if `transposed`.
    targets_BT: int [B, T]; negative ones are ignored (0, no gradient).
    temperature: divides the logits; positive.
    softcap: c in c * tanh(logits / c) (Gemma 2); 0 = off.
    return_entropy: also return the entropy of each distribution, in nats (differentiable).
    top_k: also return the ids of the k largest logits, descending.
    implementation: "xla", "mosaic" (TPU), "triton" (GPU), or None (best available).

  Returns:
    logp_BT float32, or a tuple with entropy_BT float32 and ids int32 [B, T, top_k] if asked for.

  Raises:
    ValueError: wrong shapes or options, or a named implementation that cannot be used.
  """
  vocab = unembed.shape[1 if transposed else 0]
  return token_logprob_op.token_logprobs(
      hidden_BTD, unembed, targets_BT, temperature=temperature, softcap=softcap,
      return_entropy=return_entropy, top_k=top_k, transposed=transposed,
      implementation=implementation, placement=_placement(hidden_BTD.shape[0], vocab))


def _placement(rows: int, vocab: int) -> token_logprob_op.Placement | None:
  """That of the active layout; what does not divide by the devices is whole on each of them."""
  layout = sharding.several()
  if layout is None:
    return None
  axes = {}
  for name, size in (("batch", rows), ("vocab", vocab)):
    axis = layout.rules.get(name)
    axes[name] = axis if axis and size % layout.mesh.shape[axis] == 0 else None
  return token_logprob_op.Placement(
      layout.mesh, (axes["batch"],) if axes["batch"] else (), axes["vocab"])
