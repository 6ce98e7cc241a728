"""Heads on the hidden states: values and rewards. One or two layers, K outputs per action.

The outputs at every action are `TokenStats.extras["heads_BTK"]`; a head with one output is also
`TokenStats.value_BT`. A critic, a scalar reward model, criteria of a multi-head reward model and
probes are all this head with another loss.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rljax.models import tree
from rljax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Head:
  """`W x + b`, or `W2 silu(W1 x + b1) + b2`. Hashable; part of a Policy.

  Attributes:
    outputs: K. hidden: width of the layer in between, 0 = none.
    detach: no gradient flows from this head into the transformer.
  """

  outputs: int = 1
  hidden: int = 0
  detach: bool = False

  def specs(self, width: int) -> dict[str, tree.Spec]:
    """Path -> Spec. The last layer starts at zero, so values start at 0 and pairs at evens."""
    Spec, H, K = tree.Spec, self.hidden, self.outputs
    out = {}
    if H:
      out |= {"value/in": Spec((width, H), ("embed", "mlp"), 1),
              "value/in_bias": Spec((H,), ("mlp",), 0, "zeros")}
    return out | {"value/out": Spec((H or width, K), ("mlp" if H else "embed", None), 1, "zeros"),
                  "value/out_bias": Spec((K,), (None,), 0, "zeros")}

  def __call__(self, params: PyTree, hidden_BTD: Array) -> Array:
    """[B, T, K] float32."""
    w = params["value"]
    x = jax.lax.stop_gradient(hidden_BTD) if self.detach else hidden_BTD
    if self.hidden:
      x = jax.nn.silu(jnp.einsum("btd,dh->bth", x, w["in"].astype(x.dtype))
                      + w["in_bias"].astype(x.dtype)[None, None])
    out = jnp.einsum("bth,hk->btk", x, w["out"].astype(x.dtype),
                     preferred_element_type=jnp.float32)
    return out + w["out_bias"].astype(jnp.float32)[None, None]


def head(*, outputs: int = 1, hidden: int = 0, detach: bool = False) -> Head:
  """A role's head, as a config leaf; see `Head`.

  Raises:
    ValueError: outputs below 1 or hidden below 0.
  """
  if outputs < 1 or hidden < 0:
    raise ValueError(f"a head needs outputs >= 1 and hidden >= 0, found {outputs} and {hidden}")
  return Head(int(outputs), int(hidden), bool(detach))
