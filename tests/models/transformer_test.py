"""The transformer: causality, padding, cache, scan = unroll, grouped queries, remat."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.models import cache as cache_lib
from rljax.models import policy as policy_lib
from rljax.models import transformer

CFG = transformer.TransformerConfig(vocab=11, width=16, layers=2, heads=4, kv_heads=2, mlp=24)


@pytest.fixture(scope="module")
def params():
  return policy_lib.Policy(CFG).init(jax.random.key(0))


def hidden(cfg, params, tokens, *args):
  return transformer.forward(cfg, params, tokens, *args).hidden


def tokens_of(B, S, seed=1):
  return jax.random.randint(jax.random.key(seed), (B, S), 0, CFG.vocab)


def read(policy, params, prompt, lengths, capacity):
  """Prompts into a cache of two segments."""
  h, kv = policy.prefill(params, jnp.asarray(prompt), jnp.asarray(lengths))
  cache = tuple(cache_lib.empty(policy.cfg, len(lengths), n) for n in (3, capacity - 3))
  return h, cache_lib.write(cache, kv, jnp.zeros(len(lengths), int), jnp.asarray(lengths))


def decode(policy, params, token_B, start_B, cache):
  """One more token per row."""
  one = jnp.ones(len(start_B), jnp.int32)
  h, kv = policy.extend(params, jnp.asarray(token_B)[:, None], one, jnp.asarray(start_B), cache)
  return h, cache_lib.write(cache, kv, jnp.asarray(start_B), one)


def test_causal_and_right_padding(params):
  x = tokens_of(2, 7)
  y = x.at[:, 5:].set(0)
  a, b = hidden(CFG, params, x), hidden(CFG, params, y)
  np.testing.assert_allclose(a[:, :5], b[:, :5], atol=1e-6)
  assert np.abs(a[:, 5:] - b[:, 5:]).max() > 1e-2


@pytest.mark.parametrize(
    "change", [{"scan": False}, {"remat": "full"}, {"scan": False, "remat": "dots"},
               {"remat": "attention", "query_chunk": 4}])
def test_scan_unroll_and_remat_agree(params, change):
  x = tokens_of(2, 6)
  cfg = dataclasses.replace(CFG, **change)
  loss = lambda cfg: jax.value_and_grad(lambda p: jnp.sum(hidden(cfg, p, x) ** 2))(params)
  (a, ga), (b, gb) = loss(CFG), loss(cfg)
  np.testing.assert_allclose(a, b, rtol=1e-5)
  jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-3, atol=1e-3), ga, gb)


@pytest.mark.parametrize("field, value", [
    ("activation", "relu"), ("activation", "gelu"), ("rope_theta", 100.0), ("norm_eps", 0.1),
    ("scale_embed", False), ("window", 2), ("query_scale", 0.1), ("attention_softcap", 0.1),
    ("norm_plus_one", True), ("rope_scaling", transformer.RopeScaling("linear", 4.0))])
def test_every_switch_changes_the_output(params, field, value):
  x = tokens_of(1, 6)
  other = hidden(dataclasses.replace(CFG, **{field: value}), params, x)
  assert np.abs(other - hidden(CFG, params, x)).max() > 1e-4


def test_free_head_is_its_own_matrix():
  cfg = dataclasses.replace(CFG, tied=False)
  p = policy_lib.Policy(cfg).init(jax.random.key(0))
  assert p["head"].shape == (11, 16)
  assert np.abs(transformer.unembed(cfg, p) - p["embed"]).max() > 0


def test_grouped_queries_equal_repeated_heads(params):
  """kv_heads=2 must be what 4 heads with each key/value head copied twice are."""
  full = dataclasses.replace(CFG, kv_heads=4)
  wide = jax.tree.map(lambda x: x, params)
  for name in ("k", "v"):
    wide["layers"][name] = jnp.repeat(params["layers"][name], 2, axis=2)
  x = tokens_of(2, 5)
  np.testing.assert_allclose(hidden(CFG, params, x), hidden(full, wide, x), atol=1e-5)


def test_rope_depends_on_distance_only():
  cos, sin = transformer.rope_table(
      jnp.arange(9)[None, :], transformer.inverse_frequencies(CFG, False))
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 4))
  dot = lambda i, j: float(jnp.sum(transformer.rotate(q, cos[:, i:i + 1], sin[:, i:i + 1])
                                   * transformer.rotate(k, cos[:, j:j + 1], sin[:, j:j + 1])))
  assert dot(3, 1) == pytest.approx(dot(7, 5), abs=1e-5)
  assert dot(3, 1) != pytest.approx(dot(3, 2), abs=1e-3)


def test_prefill_and_decode_equal_the_whole_forward(params):
  """Rows of different prompt lengths, decoded through the cache, against teacher forcing."""
  policy = policy_lib.Policy(CFG)
  x, lengths = tokens_of(3, 9), np.array([2, 4, 5])
  whole = hidden(CFG, params, x)
  prompt = np.where(np.arange(5) < lengths[:, None], x[:, :5], 0)
  h, cache = read(policy, params, prompt, lengths, capacity=9)
  rows = np.arange(3)
  for t in range(4):
    np.testing.assert_allclose(h, whole[rows, lengths + t - 1], atol=2e-5)
    h, cache = decode(policy, params, x[rows, lengths + t], lengths + t, cache)


def test_several_tokens_may_be_appended_at_once(params):
  """What an observation of an environment needs: rows at different positions, three tokens each."""
  policy = policy_lib.Policy(CFG)
  x, lengths = tokens_of(2, 9), np.array([2, 4])
  whole = hidden(CFG, params, x)
  prompt = np.where(np.arange(4) < lengths[:, None], x[:, :4], 0)
  _, cache = read(policy, params, prompt, lengths, capacity=9)
  at = lengths[:, None] + np.arange(3)
  new = np.take_along_axis(np.asarray(x), at, axis=1)
  h, kv, _ = transformer.forward(CFG, params, new, jnp.asarray(at), cache, keep_kv=True)
  cache = cache_lib.write(cache, kv, jnp.asarray(lengths), jnp.full(2, 3))
  np.testing.assert_allclose(h, np.take_along_axis(np.asarray(whole), at[..., None], 1), atol=2e-5)
  h, _ = decode(policy, params, x[np.arange(2), lengths + 3], lengths + 3, cache)
  np.testing.assert_allclose(h, whole[np.arange(2), lengths + 3], atol=2e-5)


@pytest.mark.parametrize("kwargs, message", [
    ({"heads": 3, "kv_heads": 2}, "multiple of kv_heads"), ({"head_dim": 3}, "must be even"),
    ({"activation": "tanh"}, "one of silu")])
def test_impossible_sizes(kwargs, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CFG, **kwargs)


@pytest.mark.parametrize("local", [(), "mixed"])
def test_the_program_does_not_grow_with_depth(local):
  """So neither does its compilation: 36 layers are lowered to the text of 4."""
  def size(layers):
    kinds = tuple(i % 2 == 0 for i in range(layers)) if local else ()
    cfg = dataclasses.replace(CFG, layers=layers, window=3 if local else 0, local=kinds,
                              remat="full")
    shapes = policy_lib.Policy(cfg).shapes()
    loss = lambda p, x: jnp.sum(hidden(cfg, p, x))
    return len(jax.jit(jax.grad(loss)).lower(shapes, tokens_of(2, 6)).as_text())
  assert size(36) < 1.02 * size(4)


@pytest.mark.parametrize("bits, softcap, share", [(0, 0.0, 1), (0, 5.0, 2), (8, 0.0, 2)])
@pytest.mark.parametrize("reaching", [0, 1, 3, 4, 8])
def test_reading_only_the_rows_that_reach_a_segment(bits, softcap, share, reaching):
  """One by one, or whole when most rows reach it: the same attention."""
  rs = np.random.default_rng(reaching)
  B, K, H, sizes = 8, 2, 4, (4, 4, 6)
  draw = lambda *shape: jnp.asarray(rs.normal(size=shape), jnp.float32)
  make = lambda c: cache_lib.Cache(draw(B, K, c, H), draw(B, K, c, H))
  start = np.where(np.arange(B) < reaching, rs.integers(5, 14, B), rs.integers(0, 5, B))
  start = jnp.asarray(rs.permutation(start))
  blocks, first = [], 0
  for c in sizes:
    segment = make(c).quantized() if bits else make(c)
    blocks.append((segment, cache_lib.before(start, first, c, start[:, None])))
    first += c
  blocks.append((make(1), jnp.ones((1, 1, 1), bool)))
  q = draw(B, 1, K * share, H)
  whole, rows = (jax.jit(lambda q, apart=apart: cache_lib.attend(
      q, blocks, scale=0.7, softcap=softcap, by_rows=apart))(q) for apart in (False, True))
  np.testing.assert_allclose(rows, whole, atol=1e-5)


@pytest.mark.parametrize("bits, share", [(0, 1), (8, 2)])
def test_what_a_group_of_rows_shares_is_read_from_its_first_row(bits, share):
  rs = np.random.default_rng(0)
  B, K, H, sizes = 8, 2, 4, (4, 4, 6)
  start = jnp.asarray([9, 11, 8, 13, 10, 4, 7, 2])
  groups = [[1, 3, 0], [4, 6, 5]]  # the first shares 8 positions, the second 4
  shared = cache_lib.Shared(jnp.asarray([8, 8, 0, 8, 4, 4, 4, 0]),
                            jnp.asarray([[*g, B] for g in groups]), jnp.asarray([2, 1, 0]))
  q = jnp.asarray(rs.normal(size=(B, 1, K * share, H)), jnp.float32)
  new = cache_lib.Cache(*jnp.asarray(rs.normal(size=(2, B, K, 1, H)), jnp.float32))
  full = rs.normal(size=(2, B, K, sum(sizes), H)).astype(np.float32)
  full[:, [3, 0], :, :8], full[:, [6, 5], :, :4] = full[:, [1], :, :8], full[:, [4], :, :4]
  spoilt = full.copy()  # of the others of a group, it is not even looked at
  spoilt[:, [3, 0], :, :8], spoilt[:, [6, 5], :, :4] = 77, 77

  def out(kv, shared, by_rows):
    blocks, first = [], 0
    for c in sizes:
      segment = cache_lib.Cache(*jnp.asarray(kv[..., first:first + c, :]))
      blocks.append((segment.quantized() if bits else segment,
                     cache_lib.before(start, first, c, start[:, None], shared=shared)))
      first += c
    blocks.append((new, jnp.ones((1, 1, 1), bool)))
    return jax.jit(lambda q: cache_lib.attend(
        q, blocks, scale=0.7, by_rows=by_rows, shared=shared))(q)
  np.testing.assert_allclose(out(spoilt, shared, True), out(full, None, False), atol=1e-5)
