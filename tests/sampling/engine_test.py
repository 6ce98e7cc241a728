"""The sampler: exact distributions, exact log-probabilities, independence of scheduling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types
from rljax.models import policy as policy_lib
from rljax.models import transformer
from rljax.sampling import engine as engine_lib
from rljax.sampling import warp

CFG = transformer.TransformerConfig(vocab=7, width=16, layers=2, heads=2, kv_heads=1, mlp=24)
POLICY = policy_lib.Policy(CFG)
EOS = 1


@pytest.fixture(scope="module")
def params():
  p = POLICY.init(jax.random.key(3))
  return {**p, "embed": p["embed"] * 0.5}  # a tied head of random hidden states is too sure


@pytest.fixture(scope="module")
def engine():
  return engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=8, prompt_buckets=(3, 6), max_tokens=6)


def requests(n, **settings):
  rs = np.random.default_rng(0)
  settings = {"max_tokens": 6, **settings}
  prompts = [rs.integers(2, 7, 1 + i % 6).astype(np.int32) for i in range(n)]
  return [engine_lib.Request(p, (i, 5), **settings) for i, p in enumerate(prompts)]


def teacher_logp(params, prompt, tokens, temperature=1.0):
  """Log-probability and entropy by one forward pass over the whole text."""
  text = np.concatenate([prompt, tokens])[None]
  h = transformer.forward(CFG, params, jnp.asarray(text)).hidden
  logp = jax.nn.log_softmax(POLICY.logits(params, h[0]) / temperature)
  at = np.arange(len(prompt) - 1, len(prompt) + len(tokens) - 1)
  return np.asarray(logp[at, tokens]), np.asarray(-jnp.sum(jnp.exp(logp) * logp, -1)[at])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_the_trainers(params, engine, temperature):
  reqs = requests(12, temperature=temperature)
  done = engine.generate(params, reqs, jax.random.key(0))
  statuses = set()
  for r, c in zip(reqs, done):
    logp, entropy = teacher_logp(params, r.prompt, c.tokens, temperature)
    np.testing.assert_allclose(c.logp, logp, atol=1e-4)
    np.testing.assert_allclose(c.entropy, entropy, atol=1e-4)
    np.testing.assert_allclose(c.raw_logp, teacher_logp(params, r.prompt, c.tokens)[0], atol=1e-4)
    assert (c.tokens[:-1] != EOS).all() and 1 <= len(c.tokens) <= 6
    assert (c.status == types.STOP) == (c.tokens[-1] == EOS)
    statuses.add(c.status)
  assert statuses == {types.STOP, types.LENGTH}  # the stop token is kept, and both ends occur


def test_a_request_does_not_depend_on_its_company(params, engine):
  reqs = requests(12)
  key = jax.random.key(0)
  together = engine.generate(params, reqs, key)
  order = np.random.default_rng(1).permutation(12)
  shuffled = engine.generate(params, [reqs[i] for i in order], key)
  for at, i in enumerate(order):
    np.testing.assert_array_equal(shuffled[at].tokens, together[i].tokens)
    np.testing.assert_allclose(shuffled[at].logp, together[i].logp, atol=1e-5)
  alone = engine.generate(params, reqs[4:5], key)[0]
  np.testing.assert_array_equal(alone.tokens, together[4].tokens)


def test_seed_and_key_decide_the_tokens(params, engine):
  prompt = np.array([2, 3], np.int32)
  many = [engine_lib.Request(prompt, (0, g), 6) for g in range(8)]
  a = engine.generate(params, many, jax.random.key(0))
  b = engine.generate(params, many, jax.random.key(1))
  assert len({c.tokens.tobytes() for c in a}) > 2
  assert any(x.tokens.tobytes() != y.tokens.tobytes() for x, y in zip(a, b))


def test_frequencies_match_the_exact_distribution(params):
  """Chi-square of first tokens in each mode against the distribution computed by hand."""
  prompt, n = np.array([2, 3, 4], np.int32), 2048
  engine = engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=n, prompt_buckets=(3,), max_tokens=1)
  h = transformer.forward(CFG, params, jnp.asarray(prompt[None])).hidden
  z = np.asarray(POLICY.logits(params, h[0, -1:])[0], np.float64)
  for mode in ({}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.4}):
    reqs = [engine_lib.Request(prompt, (1, i), 1, **mode) for i in range(n)]
    done = engine.generate(params, reqs, jax.random.key(5))
    p = np.exp(z / mode.get("temperature", 1.0))
    p /= p.sum()
    rank = np.argsort(-p)
    keep = np.ones(7, bool)
    if "top_k" in mode:
      keep[rank[3:]] = False
    if "top_p" in mode:
      before = np.cumsum(p[rank]) - p[rank]
      keep[rank[before >= 0.7]] = False
    if "min_p" in mode:
      keep = p >= 0.4 * p.max()
    q = np.where(keep, p, 0) / p[keep].sum()
    counts = np.bincount([c.tokens[0] for c in done], minlength=7)
    assert counts[~keep].sum() == 0, mode
    chi2 = ((counts - n * q)[keep] ** 2 / (n * q)[keep]).sum()
    assert chi2 < 25, (mode, counts, n * q)  # 6 degrees of freedom: p < 0.0005
    logs = np.array([c.logp[0] for c in done])
    np.testing.assert_allclose(logs, np.log(q[[c.tokens[0] for c in done]]), atol=1e-4)


def test_greedy_takes_the_likeliest(params, engine):
  reqs = requests(6, greedy=True)
  for r, c in zip(reqs, engine.generate(params, reqs, jax.random.key(0))):
    text = np.concatenate([r.prompt, c.tokens])[None]
    h = transformer.forward(CFG, params, jnp.asarray(text)).hidden
    best = np.argmax(POLICY.logits(params, h[0]), -1)[len(r.prompt) - 1:-1]
    np.testing.assert_array_equal(c.tokens, best)
    assert (c.logp == 0).all() and (c.raw_logp < 0).all()


def test_limits_are_per_request(params, engine):
  reqs = [engine_lib.Request(np.array([2, 3], np.int32), (0, i), 1 + i) for i in range(6)]
  for i, c in enumerate(engine.generate(params, reqs, jax.random.key(0))):
    assert len(c.tokens) <= 1 + i


def test_settings_are_traced(params, engine):
  from rljax import testing
  engine.generate(params, requests(8), jax.random.key(0))
  with testing.count_compilations() as c:
    for settings in ({"temperature": 0.3}, {"top_k": 2}, {"max_tokens": 2}, {"greedy": True}):
      engine.generate(params, requests(8, **settings), jax.random.key(1))
  assert c.count == 0


@pytest.mark.parametrize("change, message", [
    ({"prompt": np.zeros(7, np.int32)}, "prompt of 7 tokens; 1 to 6 fit"),
    ({"prompt": np.zeros(0, np.int32)}, "an empty prompt"),
    ({"max_tokens": 7}, "max_tokens=7; 1 to 6"), ({"temperature": 0.0}, "must be positive"),
    ({"top_p": 0.0}, "top_p=0.0"), ({"min_p": 1.0}, "min_p=1.0"), ({"top_k": -1}, "top_k=-1")])
def test_requests_that_do_not_fit(params, engine, change, message):
  base = {"prompt": np.array([2], np.int32), "seed": (0, 0), "max_tokens": 2}
  with pytest.raises(ValueError, match=message):
    engine.generate(params, [engine_lib.Request(**{**base, **change})], jax.random.key(0))


def test_warp_without_filters_is_log_softmax():
  z = jax.random.normal(jax.random.key(0), (3, 9))
  ones, zeros = jnp.ones(3), jnp.zeros(3)
  out = warp.warp(z, temperature_S=2 * ones, top_k_S=zeros.astype(int), top_p_S=ones, min_p_S=zeros)
  np.testing.assert_allclose(out, jax.nn.log_softmax(z / 2), atol=1e-6)
