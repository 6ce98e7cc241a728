"""Token logprobs: reference and (interpreted) TPU and GPU kernels against a float64 formula."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from rljax_kernels.token_logprob import mosaic, op

KINDS = ["xla", "mosaic", "triton"]
RACES = pltpu.InterpretParams(detect_races=True, out_of_bounds_reads="uninitialized")
SIZES = [  # B, T, D, V: one token; nothing aligned; several blocks of tokens and ids
    (1, 1, 128, 7), (3, 7, 128, 257), (2, 90, 256, 1500)]
LARGE = [(1, 5, 128, 32000), (1, 3, 128, 151936)]  # real vocabularies: slow to interpret
OPTIONS = [
    {}, {"temperature": 0.7}, {"softcap": 5.0, "temperature": 1.3}, {"transposed": True},
    {"transposed": True, "softcap": 2.0}]


def case(B, T, D, V, *, transposed=False, dtype=jnp.float32, seed=0):
  """hidden, unembed (logits of spread 2), targets with one in four ignored, and cotangents."""
  rng = np.random.default_rng(seed)
  h = jnp.asarray(rng.normal(size=(B, T, D)), dtype)
  w = jnp.asarray(rng.normal(size=(V, D)) * 2 * D**-0.5, dtype)
  y = rng.integers(0, V, (B, T))
  y = np.where((rng.random((B, T)) < 0.25) & (B * T > 1), -1, y).astype(np.int32)
  return h, w.T if transposed else w, jnp.asarray(y), rng.normal(size=(2, B, T)).astype(np.float32)


def exact(h, w, y, g, *, temperature=1.0, softcap=0.0, transposed=False):
  """logp, entropy and the gradients to h, w, temperature of sum(g * (logp, entropy)): float64."""
  h, w = np.float64(h), np.float64(w)
  w = w.T if transposed else w
  a = h @ w.T
  squashed = softcap * np.tanh(a / softcap) if softcap else a
  z = squashed / temperature
  top = z.max(-1, keepdims=True)
  logp = z - top - np.log(np.exp(z - top).sum(-1, keepdims=True))
  p = np.exp(logp)
  entropy = -(p * logp).sum(-1)
  valid, hit = y >= 0, np.arange(w.shape[0]) == np.asarray(y)[..., None]
  g_logp, g_entropy = (np.where(valid, x, 0)[..., None] for x in g)
  dz = g_logp * (hit - p) - g_entropy * p * (logp + entropy[..., None])
  da = dz / temperature * (1 - (squashed / softcap)**2 if softcap else 1.0)
  dw = np.einsum("btv,btd->vd", da, h)
  picked = np.where(hit, logp, 0).sum(-1)
  return ((np.where(valid, picked, 0), np.where(valid, entropy, 0)),
          (da @ w, dw.T if transposed else dw, -(dz * z).sum() / temperature))


@functools.partial(jax.jit, static_argnames=("kind", "softcap", "transposed", "interpret"))
def ours(h, w, y, g, temperature, kind, *, softcap=0.0, transposed=False, interpret=True):
  def f(h, w, t):
    out = op.token_logprobs(h, w, y, temperature=t, softcap=softcap, return_entropy=True,
                            transposed=transposed, implementation=kind, interpret=interpret)
    return jnp.vdot(out[0], g[0]) + jnp.vdot(out[1], g[1]), out
  (_, out), grads = jax.value_and_grad(f, (0, 1, 2), has_aux=True)(h, w, temperature)
  return out, grads


def errors(found, wanted):
  """Largest error of each array, relative to the array's largest number."""
  return [float(np.max(np.abs(np.float64(a) - b)) / max(np.max(np.abs(b)), 1e-30))
          for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size, options", [
    *itertools.product(SIZES, OPTIONS), *itertools.product(LARGE, OPTIONS[:1])], ids=str)
def test_float32_is_exact_to_1e_5(kind, size, options):
  layout = {"transposed": options.get("transposed", False)}
  h, w, y, g = case(*size, **layout)
  static = {k: v for k, v in options.items() if k != "temperature"}
  found = ours(h, w, y, g, jnp.float32(options.get("temperature", 1.0)), kind, **static)
  assert max(errors(found, exact(h, w, y, g, **options))) < 1e-5


def test_bfloat16_within_2e_2_and_no_worse_than_the_reference():
  h, w, y, g = case(2, 90, 256, 1500, dtype=jnp.bfloat16)
  wanted = exact(h, w, y, g)
  reference, *kernels = (errors(ours(h, w, y, g, jnp.float32(1.0), kind), wanted)
                         for kind in KINDS)
  for kernel in kernels:
    assert max(kernel) < 2e-2
    for a, b in zip(kernel, reference):
      assert a <= 1.2 * b + 1e-5


def test_mixed_precision_keeps_the_dtypes_and_adds_in_float32():
  h, _, y, g = case(1, 40, 128, 700, dtype=jnp.bfloat16)
  _, w, _, _ = case(1, 40, 128, 700)
  wanted = exact(h, w.astype(jnp.bfloat16), y, g)
  for kind in KINDS:
    found = ours(h, w, y, g, jnp.float32(1.0), kind)
    assert found[1][0].dtype == jnp.bfloat16 and found[1][1].dtype == jnp.float32
    assert max(errors(found, wanted)) < 2e-2
    assert max(errors(found[0], wanted[0])) < 1e-5  # the values see no rounding but the inputs'


def test_the_copies_of_the_backward_do_not_race(capfd):
  """Simulated memory and copies of a TPU; what is outside an array reads as NaN."""
  h, w, y, g = case(1, 100, 128, 1100)
  found = ours(h, w, y, g, jnp.float32(1.0), "mosaic", interpret=RACES)
  assert max(errors(found, exact(h, w, y, g))) < 1e-5
  assert "RACE" not in capfd.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_and_impossible_targets(kind):
  h, w, y, g = case(1, 20, 128, 300)
  keep = np.asarray(y)[0] >= 0
  run = lambda h, y, g: ours(h, w, y, g, jnp.float32(1.0), kind)
  (logp, entropy), (dh, dw, dt) = run(h, y, g)
  some = run(h[:, keep], y[:, keep], g[:, :, keep])
  assert not np.any(logp[0][~keep]) and not np.any(entropy[0][~keep]) and not np.any(dh[0][~keep])
  np.testing.assert_allclose(logp[:, keep], some[0][0], rtol=1e-5)
  for a, b in zip((dh[:, keep], dw, dt), some[1]):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  none = run(h, jnp.full_like(y, -1), g)
  assert not any(np.any(x) for x in jax.tree.leaves(none))
  (logp, entropy), _ = run(h, y.at[0, 3].set(300), g)
  assert np.isnan(logp[0, 3]) and np.isnan(logp).sum() == 1 and np.isfinite(entropy).all()


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_logits_stay_finite(kind):
  h, w, y, g = case(1, 20, 128, 700)
  out, grads = ours(h * 1e4, w, y, g, jnp.float32(1.0), kind)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((out, grads)))


@pytest.mark.parametrize("kind", ["xla", "mosaic"])
@pytest.mark.parametrize("transposed", [False, True])
def test_top_k_ids(kind, transposed):
  h, w, y, _ = case(2, 9, 128, 5000, transposed=transposed)
  w = w.at[:, 17].set(w[:, 4000]) if transposed else w.at[17].set(w[4000])  # ties: lower id first
  logp, ids = op.token_logprobs(
      h, w, y, top_k=5, transposed=transposed, implementation=kind, interpret=True)
  z = h @ (w if transposed else w.T)
  np.testing.assert_array_equal(ids, jax.lax.top_k(z, 5)[1])
  assert logp.shape == (2, 9) and ids.dtype == jnp.int32


def test_no_block_of_logits_is_as_large_as_all_of_them():
  h, w, y, _ = case(1, 700, 128, 3000)
  for kind in ("xla", "mosaic"):
    f = lambda h, w: op.token_logprobs(
        h, w, y, implementation=kind, interpret=True, return_entropy=True)[1].sum()
    text = str(jax.make_jaxpr(jax.grad(f, (0, 1)))(h, w))
    assert "700,3000" not in text and "704,3000" not in text


def test_memory_is_a_tenth_of_the_dense_one():
  h, w, y, _ = case(1, 2048, 128, 32000)

  def dense(h, w):
    logp = jax.nn.log_softmax(jnp.einsum("btd,vd->btv", h, w))
    return jnp.take_along_axis(logp, y[..., None], -1).sum() + (jnp.exp(logp) * logp).sum()

  def blocked(h, w):
    logp, entropy = op.token_logprobs(h, w, y, return_entropy=True)
    return logp.sum() + entropy.sum()

  used = [jax.jit(jax.grad(f, (0, 1))).lower(h, w).compile().memory_analysis().temp_size_in_bytes
          for f in (dense, blocked)]
  assert used[1] < 0.1 * used[0]


# --- the switch -----------------------------------------------------------------------------------


def platforms(implementation, **shapes):
  """Does the lowered program for a TPU hold the kernel?"""
  sizes = {"B": 2, "T": 8, "D": 128, "V": mosaic.MIN_VOCAB, **shapes}
  h, w, y, _ = case(*(sizes[k] for k in "BTDV"))
  f = jax.jit(lambda h, w: op.token_logprobs(h, w, y, implementation=implementation).sum())
  return "tpu_custom_call" in f.trace(h, w).lower(lowering_platforms=("tpu",)).as_text()


def test_none_takes_the_kernel_on_a_tpu_where_it_pays():
  assert platforms(None) and platforms("mosaic")
  assert not platforms("xla")
  assert not platforms(None, V=mosaic.MIN_VOCAB - 1)  # the kernel can, but does not pay
  assert platforms("mosaic", V=mosaic.MIN_VOCAB - 1)
  assert not platforms(None, D=96)  # the kernel cannot


@pytest.mark.parametrize("transposed", [False, True])
def test_the_gpu_kernel_lowers_for_cuda(transposed):
  h, w, y, _ = case(1, 70, 128, 5000, dtype=jnp.bfloat16, transposed=transposed)

  def lowered(implementation):
    f = jax.jit(jax.grad(lambda h, w: op.token_logprobs(
        h, w, y, transposed=transposed, implementation=implementation).sum(), (0, 1)))
    return f.trace(h, w).lower(lowering_platforms=("cuda",)).as_text()

  assert lowered("triton").count("@__gpu$xla.gpu.triton") == 3  # forward; a slice and the rest
  assert "triton" not in lowered(None)  # not before it has been measured


def test_a_named_implementation_that_cannot_be_used_is_an_error():
  h, w, y, _ = case(1, 4, 96, 50)
  with pytest.raises(ValueError, match="'mosaic'.* width of 96 is not a multiple of 128"):
    op.token_logprobs(h, w, y, implementation="mosaic")
  with pytest.raises(ValueError, match="'triton'.* no top_k"):
    op.token_logprobs(*case(1, 4, 128, 50)[:3], implementation="triton", top_k=1)
  with pytest.raises(ValueError, match="float16 is neither"):
    op.token_logprobs(*(jnp.zeros(s, jnp.float16) for s in ((1, 4, 128), (50, 128))), y,
                      implementation="mosaic")
  with pytest.raises(ValueError, match="no implementation 'magic'; there is: xla, mosaic, triton"):
    op.token_logprobs(h, w, y, implementation="magic")
  with pytest.raises(ValueError, match="(?i)interpret mode"):  # no TPU here
    op.token_logprobs(*case(1, 4, 128, 50)[:3], implementation="mosaic")


def test_wrong_shapes_are_errors():
  h, w, y, _ = case(1, 4, 128, 50)
  with pytest.raises(ValueError, match=r"not \[V, D\] with that D"):
    op.token_logprobs(h, w.T, y)
  with pytest.raises(ValueError, match="targets"):
    op.token_logprobs(h, w, y[:, :2])
  with pytest.raises(ValueError, match="top_k=51"):
    op.token_logprobs(h, w, y, top_k=51)


def test_blocks_fit_in_the_memory_of_every_known_device():
  for kind, entry in mosaic.BLOCKS.items():
    for name in ("forward", "backward"):
      for D in (128, 4096, 8192, 16384):
        for weights in (jnp.bfloat16, jnp.float32):
          h, w = jnp.zeros((1, 1, D), jnp.bfloat16), jax.ShapeDtypeStruct((9999, D), weights)
          n, v, limit = mosaic.blocks(name, kind, 8192, D, 151936, 2, w.dtype.itemsize)
          assert n % 16 == 0 and v % 128 == 0 and limit == entry["vmem_mib"] * 2**20
          fits = mosaic._bytes(name, n, v, D, 2, w.dtype.itemsize) <= limit
          assert fits or "do not fit" in mosaic.fault(h, w, kind)
          assert fits or D > 4096  # the width of an 8B model fits everywhere
