"""Floating-point operations of a function, counted on its jaxpr: products only, loops multiplied.

XLA's own cost analysis counts the body of a loop once, whatever its length.
"""

import math

import jax


def count(fn, *args) -> float:
  """Operations of all matrix products of `fn(*args)`, on all devices together.

  A scan counts its length, a cond its dearest branch, a while loop one round, a rematerialised
  piece each time it runs, a kernel what it says of itself.
  """
  return _jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def _jaxpr(jaxpr) -> float:
  return sum(_equation(e) for e in jaxpr.eqns)


def _equation(e) -> float:
  name, params = e.primitive.name, e.params
  if name == "dot_general":
    (contract, _), _ = params["dimension_numbers"]
    shape = e.invars[0].aval.shape
    return 2.0 * math.prod(e.outvars[0].aval.shape) * math.prod(shape[i] for i in contract)
  if name in ("ragged_dot", "ragged_dot_general"):
    (contract, _), _ = params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    rows = e.invars[0].aval.shape  # each row meets one group's matrix
    return 2.0 * math.prod(rows) * math.prod(e.invars[1].aval.shape) / (
        e.invars[2].aval.shape[0] * math.prod(rows[i] for i in contract))
  if name == "pallas_call":
    cost = params.get("cost_estimate")
    return float(cost.flops) if cost else 0.0
  if name == "cond":
    return max(_jaxpr(b.jaxpr) for b in params["branches"])
  inside = sum(_inner(p) for p in params.values())
  if name == "scan":
    return inside * params["length"]
  if name == "shard_map":  # its body is what one device does
    return inside * params["mesh"].size
  return inside


def _inner(p) -> float:
  if hasattr(p, "eqns"):
    return _jaxpr(p)
  if hasattr(p, "jaxpr") and hasattr(p.jaxpr, "eqns"):
    return _jaxpr(p.jaxpr)
  return 0.0
