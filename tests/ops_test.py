"""token_logprobs against the plain formula, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import ops, testing


def plain(h, w, y, temperature, softcap):
  z = jnp.einsum("btd,vd->btv", h, w)
  z = softcap * jnp.tanh(z / softcap) if softcap else z
  logp = jax.nn.log_softmax(z / temperature, -1)
  entropy = -jnp.sum(jnp.exp(logp) * logp, -1)
  return jnp.take_along_axis(logp, y[..., None], -1)[..., 0], entropy


def case(B, T, D=8, V=37, seed=0):
  k = jax.random.split(jax.random.key(seed), 3)
  return (jax.random.normal(k[0], (B, T, D)), jax.random.normal(k[1], (V, D)),
          jax.random.randint(k[2], (B, T), 0, V))


@pytest.mark.parametrize("B, T", [(1, 1), (3, 5), (40, 33)])  # the last is several chunks, uneven
@pytest.mark.parametrize("temperature, softcap", [(1.0, 0.0), (0.7, 0.0), (1.3, 5.0)])
def test_value_and_gradient(B, T, temperature, softcap):
  h, w, y = case(B, T)
  weights = jax.random.normal(jax.random.key(9), (2, B, T))

  def scalar(f):
    def g(h, w, t):
      logp, entropy = f(h, w, t)
      return jnp.sum(logp * weights[0] + entropy * weights[1])
    return jax.value_and_grad(g, argnums=(0, 1, 2))

  ours = scalar(lambda h, w, t: ops.token_logprobs(
      h, w, y, temperature=t, softcap=softcap, return_entropy=True))
  theirs = scalar(lambda h, w, t: plain(h, w, y, t, softcap))
  (a, ga), (b, gb) = ours(h, w, temperature), theirs(h, w, temperature)
  np.testing.assert_allclose(a, b, rtol=2e-5)
  for x, z in zip(ga, gb):
    np.testing.assert_allclose(x, z, rtol=2e-4, atol=2e-4)


def test_extreme_logits_stay_finite():
  h, w, y = case(2, 3)
  f = lambda h: jnp.sum(ops.token_logprobs(h * 1e4, w, y))
  value, grad = jax.value_and_grad(f)(h)
  assert np.isfinite(value) and np.isfinite(grad).all()


def test_bfloat16_inputs_accumulate_in_float32():
  h, w, y = case(4, 16, D=64)
  low = ops.token_logprobs(h.astype(jnp.bfloat16), w.astype(jnp.bfloat16), y)
  exact, _ = plain(h.astype(jnp.bfloat16).astype(jnp.float32),
                   w.astype(jnp.bfloat16).astype(jnp.float32), y, 1.0, 0.0)
  assert low.dtype == jnp.float32
  np.testing.assert_allclose(low, exact, rtol=1e-5, atol=1e-5)


def test_no_token_by_vocabulary_array_forward_or_backward():
  B, T, V = 16, 128, 1000
  h, w, y = case(B, T, V=V)
  ours = jax.make_jaxpr(jax.grad(lambda h, w: ops.token_logprobs(h, w, y).sum(), (0, 1)))(h, w)
  naive = jax.make_jaxpr(jax.grad(lambda h, w: plain(h, w, y, 1.0, 0.0)[0].sum(), (0, 1)))(h, w)
  assert not testing.arrays_over(ours, B * T, V)
  assert testing.arrays_over(naive, B * T, V)  # the check can fail


def test_unknown_implementation():
  h, w, y = case(1, 1)
  with pytest.raises(ValueError, match="no implementation 'magic'"):
    ops.token_logprobs(h, w, y, implementation="magic")
