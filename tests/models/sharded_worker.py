"""Run with eight simulated devices: loss, gradients and decoding under every layout, as JSON."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

from rljax import sharding, testing, types
from rljax.data import packing
from rljax.models import heads, policy
from rljax.sampling import engine as engine_lib
from rljax.sampling import orders
from tests.models import transformer_test

B, S, T, V = 8, 10, 5, 16
MODELS = {
    "dense": dict(kv_heads=2, tied=False),
    "experts": dict(kv_heads=4, experts=4, experts_per_token=2, mlp=24),
}
LAYOUTS = [("fsdp", 1), ("fsdp_tp", 2), ("fsdp_tp", 4), ("sampler", 4)]


def batch_of():
  rs = np.random.default_rng(0)
  f = np.ones((B, T), np.float32)
  return types.Batch(
      {"tokens_BS": rs.integers(0, V, (B, S)).astype(np.int32),
       "action_pos_BT": np.tile(np.arange(T, dtype=np.int32) + 4, (B, 1))},
      rs.integers(0, V, (B, T)).astype(np.int32), f, f, f, f, f, np.ones(B, np.float32),
      np.arange(B, dtype=np.int32))


def loss(model, params, batch):
  stats = model.stats(params, batch)
  total = jnp.mean(stats.logp_BT) + 0.1 * jnp.mean(stats.entropy_BT) + jnp.mean(stats.value_BT**2)
  return total + 0.01 * jnp.mean(stats.extras.get("router_B", jnp.zeros(1)))


def decode(model, params, tokens_BS):
  h, cache = transformer_test.read(model, params, tokens_BS[:, :6], jnp.full(B, 6), 8)
  g, _ = transformer_test.decode(model, params, tokens_BS[:, 6], jnp.full(B, 6), cache)
  return model.logits(params, h), model.logits(params, g)


def run(model, params, batch):
  value = jax.jit(jax.value_and_grad(lambda p, b: loss(model, p, b)))(params, batch)
  return jax.tree.map(np.asarray, (
      value, jax.jit(lambda p, t: decode(model, p, t))(params, batch.inputs["tokens_BS"])))


def pack(plain, params):
  """Packed rows over four devices, against rows of their own on one."""
  grad = lambda model: jax.jit(jax.value_and_grad(lambda p, b: loss(model, p, b)))
  want = grad(plain)(params, batch_of())
  layout = sharding.Layout(sharding.mesh(tensor=2), "single")
  packed = packing.pack(batch_of(), rows=4, length=18, parts=4)
  args = sharding.put_replicated(params, layout.mesh), sharding.put_rows(packed, layout.mesh)
  made = grad(dataclasses.replace(plain, layout=layout)).lower(*args).compile()
  got = made(*args)
  return {"loss": gap(got[0], want[0]), "gradients": gap(got[1], want[1]),
          "gathers": made.as_text().count(" all-gather(")}


def sample(model, params, mesh):
  """Tokens and log-probabilities of 40 requests in 32 slots, eight of them for one prompt that is
  read once while they decode; where the cache lies then; and what was compiled after warm-up."""
  engine = engine_lib.Engine(model, stop_ids=(1,), slots=32, prompt_buckets=(4, 64), max_tokens=6,
                             mesh=mesh)
  rs, told, tell = np.random.default_rng(1), [], orders.shared
  orders.shared = lambda *a: told.append(tell(*a)) or told[-1]
  long = rs.integers(2, V, 64).astype(np.int32)
  key = jax.random.key(0)
  engine.warm_up(params)
  with testing.count_compilations() as c:
    for few in (1, 3, 9, 30):  # before they read what others do
      engine.generate(params, [engine_lib.Request(
          rs.integers(2, V, 1 + few).astype(np.int32), (i, 0), 1 + i % 6) for i in range(few)], key)
    done = engine.generate(params, [
        engine_lib.Request(long if i % 5 == 0 else rs.integers(2, V, 1 + i % 4).astype(np.int32),
                           (i, 0), 6 - i % 5) for i in range(40)], key)
  orders.shared = tell
  assert max(t.count_N.max() for t in told) > 0
  cache = jax.tree.leaves(engine._slots.cache)[0]
  return (np.concatenate([c.tokens for c in done]), np.concatenate([c.logp for c in done]),
          np.divide(cache.shape, cache.sharding.shard_shape(cache.shape)).astype(int).tolist(),
          c.count)


def gap(a, b):
  return max(float(np.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def main():
  assert len(jax.devices()) == 8
  out = {}
  for name, sizes in MODELS.items():
    plain = dataclasses.replace(policy.decoder(V, width=32, layers=2, heads=4, **sizes),
                                head=heads.head(hidden=8))
    params = plain.init(jax.random.key(0))
    params["value"]["out"] = jnp.ones_like(params["value"]["out"])
    want = run(plain, params, batch_of())
    for rules, tensor in LAYOUTS:
      layout = sharding.Layout(sharding.mesh(tensor=tensor), rules)
      model = dataclasses.replace(plain, layout=layout)
      placed = jax.device_put(params, jax.tree.map(lambda x: x.sharding, model.shapes()))
      split = placed["layers"]["up"]
      part = split.addressable_shards[0].data.size / split.size
      got = run(model, placed, sharding.put_rows(batch_of(), layout.mesh))
      out[f"{name} {rules} {tensor}"] = {
          "loss": gap(got[0][0], want[0][0]), "gradients": gap(got[0][1], want[0][1]),
          "decode": gap(got[1], want[1]), "part": part, "whole": sorted(layout.whole)}
    if name == "dense":
      out["packed"] = pack(plain, params)
    want = sample(plain, params, None) if name == "dense" else None
    for tensor in (1, 2) if want else ():
      layout = sharding.Layout(sharding.mesh(tensor=tensor), "sampler")
      model = dataclasses.replace(plain, layout=layout)
      placed = jax.device_put(params, jax.tree.map(lambda x: x.sharding, model.shapes()))
      got = sample(model, placed, layout.mesh)
      out[f"{name} engine {tensor}"] = {"tokens": bool(np.array_equal(got[0], want[0])),
                                        "logp": gap(got[1], want[1]), "split": got[2],
                                        "compiled": got[3]}
  print(json.dumps(out))


if __name__ == "__main__":
  main()
