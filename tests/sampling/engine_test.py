"""The sampler: exact distributions, exact log-probabilities, independence of scheduling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import testing, types
from rljax.models import policy as policy_lib
from rljax.models import transformer
from rljax.sampling import engine as engine_lib
from rljax.sampling import warp
from rljax.train import roles

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


@jax.jit
def read(params, text_S, temperature):
  """Log-probabilities [S, V] of what follows each token, by one forward pass."""
  h = transformer.forward(CFG, params, text_S[None]).hidden
  return jax.nn.log_softmax(POLICY.logits(params, h[0]) / temperature)


def teacher_logp(params, prompt, tokens, temperature=1.0):
  """Log-probability and entropy of the tokens; padded, so that most texts share a program."""
  text = np.concatenate([prompt, tokens])
  logp = read(params, jnp.asarray(np.pad(text, (0, -len(text) % 32))), temperature)
  at = np.arange(len(prompt) - 1, len(text) - 1)
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
  prompt, n = np.array([2, 3, 4], np.int32), 1024
  engine = engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=256, prompt_buckets=(3,), max_tokens=1)
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


def test_nothing_compiles_after_warm_up(params):
  """200 calls with other prompts, lengths, limits, group sizes and settings each time."""
  engine = engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=8, prompt_buckets=(3, 6),
                             max_tokens=6, capacity=16)
  engine.warm_up(params, conversations=True)
  key, rs = jax.random.key(0), np.random.default_rng(0)
  with testing.count_compilations() as c:
    for call in range(200):
      reqs = [engine_lib.Request(
          rs.integers(2, 7, rs.integers(1, 7)).astype(np.int32), (call, i), int(rs.integers(1, 7)),
          temperature=float(rs.uniform(0.2, 2)), top_k=int(rs.integers(0, 4)),
          top_p=float(rs.uniform(0.3, 1)), min_p=float(rs.uniform(0, 0.3)),
          greedy=bool(rs.integers(2)), allowed=[2, 3, EOS] if call % 3 == 0 else None,
          keep=call % 5 == 0) for i in range(rs.integers(1, 12))]
      done = engine.generate(params, reqs, key)
      if call % 5 == 0:
        engine.generate(params, [engine_lib.Request(
            np.array([2], np.int32), (call, 0), 2, parent=c.handle) for c in done], key)
  assert c.count == 0


def test_more_requests_than_slots_and_a_prompt_is_read_once_per_group(params, engine):
  """Groups of five over eight slots, unequal lengths: as each request would be answered alone."""
  prompts = [np.array(p, np.int32) for p in ([2, 3], [4, 5, 6], [2, 2, 3, 4, 5])]
  reqs = [engine_lib.Request(p, (i, g), 6) for i, p in enumerate(prompts) for g in range(5)]
  key = jax.random.key(3)
  together = engine.generate(params, reqs, key)
  for r, c in zip(reqs, together):
    logp, _ = teacher_logp(params, r.prompt, c.tokens)
    np.testing.assert_allclose(c.logp, logp, atol=1e-4)
  for i in (0, 4, 7, 14):
    np.testing.assert_array_equal(engine.generate(params, [reqs[i]], key)[0].tokens,
                                  together[i].tokens)


def test_known_limits_fill_the_slots(params):
  """Longest first: with known geometric lengths at least nine slots of ten are busy."""
  endless = {**params, "embed": params["embed"].at[EOS].set(-100 * jnp.sign(jnp.ones(16)))}
  engine = engine_lib.Engine(POLICY, stop_ids=(), slots=8, prompt_buckets=(2,), max_tokens=32)
  lengths = np.clip(np.random.default_rng(0).geometric(1 / 6, 64), 1, 32)
  reqs = [engine_lib.Request(np.array([2, 3], np.int32), (i, 0), int(n))
          for i, n in enumerate(lengths)]
  done = engine.generate(endless, reqs, jax.random.key(0))
  assert [len(c.tokens) for c in done] == lengths.tolist()
  assert engine.stats.used == lengths.sum() == engine.stats.tokens
  assert engine.stats.used / engine.stats.rows > 0.9


def test_weights_that_changed_end_what_is_remembered(params, engine):
  """The same prompt under other weights is read again, not taken from a slot."""
  req = [engine_lib.Request(np.array([2, 3, 4], np.int32), (0, 0), 6)]
  engine.generate(params, req, jax.random.key(0))
  other = jax.tree.map(lambda x: x * 1.3, params)
  c = engine.generate(other, req, jax.random.key(0))[0]
  np.testing.assert_allclose(c.logp, teacher_logp(other, req[0].prompt, c.tokens)[0], atol=1e-4)


# --- settings of a request ---


def test_allowed_tokens_and_a_forced_start(params, engine):
  allowed, forced = [2, 5, EOS], [6, 4]
  reqs = [engine_lib.Request(np.array([3], np.int32), (0, i), 6, allowed=allowed, forced=forced)
          for i in range(12)]
  for c in engine.generate(params, reqs, jax.random.key(1)):
    assert c.tokens[:2].tolist() == forced
    assert set(c.tokens[2:].tolist()) <= set(allowed)
    text = np.concatenate([[3], c.tokens])[None]
    z = POLICY.logits(params, transformer.forward(CFG, params, jnp.asarray(text)).hidden[0])
    z = np.asarray(z)[:-1]
    masked = np.full(7, -np.inf)
    masked[allowed] = 0
    for t in range(2, len(c.tokens)):
      expected = jax.nn.log_softmax(z[t] + masked)[c.tokens[t]]
      np.testing.assert_allclose(c.logp[t], expected, atol=1e-4)
    np.testing.assert_allclose(c.raw_logp, jax.nn.log_softmax(z)[np.arange(len(z)), c.tokens],
                               atol=1e-4)
    assert np.isneginf(c.logp[:2]).all()  # what was given could not have been drawn


def test_stop_ids_and_stop_sequences_end_a_response(params, engine):
  prompt = np.array([3, 2], np.int32)
  plain = [engine_lib.Request(prompt, (0, i), 6) for i in range(24)]
  free = engine.generate(params, plain, jax.random.key(2))
  i, c = next((i, c) for i, c in enumerate(free) if len(c.tokens) >= 4)
  pair = c.tokens[1:3].tolist()
  stopped = engine.generate(
      params, [dataclasses.replace(plain[i], stop_sequences=[pair])], jax.random.key(2))[0]
  text = c.tokens.tolist()
  ends = next(t for t in range(2, len(text) + 1) if text[t - 2:t] == pair)
  assert stopped.tokens.tolist() == text[:ends] and stopped.status == types.STOP
  by_id = engine.generate(
      params, [dataclasses.replace(plain[i], stop_ids=[pair[0]])], jax.random.key(2))[0]
  assert by_id.tokens.tolist() == text[:text.index(pair[0]) + 1] and by_id.status == types.STOP
  forced = engine.generate(params, [dataclasses.replace(
      plain[i], stop_ids=[pair[0]], forced=[pair[0]])], jax.random.key(2))[0]
  assert len(forced.tokens) > 1  # a given token ends nothing


def test_alternatives_are_the_likeliest_tokens(params):
  engine = engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=2, prompt_buckets=(3,), max_tokens=3,
                             alternatives=2)
  c = engine.generate(params, requests(1, max_tokens=3, greedy=True), jax.random.key(0))[0]
  assert c.top_ids.shape == c.top_logp.shape == (len(c.tokens), 2)
  np.testing.assert_array_equal(c.top_ids[:, 0], c.tokens)
  np.testing.assert_allclose(c.top_logp[:, 0], c.raw_logp, atol=1e-6)
  assert (c.top_logp[:, 0] >= c.top_logp[:, 1]).all()


def test_slots_of_one_prompt_read_it_once(params, monkeypatch):
  """Groups of 3 to 6 behind prompts of a segment and more, some of which go on when the rest
  has ended: the same tokens and log-probabilities as without sharing."""
  told, tell = [], engine_lib.orders_lib.shared
  monkeypatch.setattr(engine_lib.orders_lib, "shared",
                      lambda *a: told.append(tell(*a)) or told[-1])
  rs = np.random.default_rng(1)
  prompts = [rs.integers(2, 7, n).astype(np.int32) for n in (70, 64, 66, 20)]
  of = [3] + [0] * 6 + [1] * 5 + [2] * 3 + [3] * 3
  reqs = [engine_lib.Request(prompts[p], (i, 0), 22 if i < 5 else 2 + i % 3)
          for i, p in enumerate(of)]
  reqs[0] = dataclasses.replace(reqs[0], stop_ids=range(7))  # the first slot is soon another's
  done, key = {}, jax.random.key(0)
  for shares in (True, False):
    engine = engine_lib.Engine(POLICY, stop_ids=(), slots=8, prompt_buckets=(20, 70),
                               max_tokens=22)
    assert engine._shares  # on a CPU
    engine._shares = shares
    engine.warm_up(params)
    before = len(told)
    with testing.count_compilations() as c:
      done[shares] = engine.generate(params, reqs, key)
    assert c.count == 0
    assert (len(told) > before) == shares
  sizes = [t.length_B.shape[0] for t in told]
  assert {4, 8} == set(sizes)  # all slots, and those that were left
  shared = {(len(t.length_B), int(t.count_N[0])) for t in told}
  assert {(8, 1), (4, 1)} <= shared
  for r, mine, plain in zip(reqs, done[True], done[False]):
    np.testing.assert_array_equal(mine.tokens, plain.tokens)
    np.testing.assert_allclose(mine.logp, plain.logp, atol=1e-5)
    np.testing.assert_allclose(mine.logp, teacher_logp(params, r.prompt, mine.tokens)[0], atol=1e-4)


# --- conversations ---


def talk(params, engine, key, forks=1, **second):
  """Two turns: five first answers, each continued `forks` times behind an observation."""
  first = [engine_lib.Request(np.array([2, 3 + i], np.int32), (i, 0), 3, keep=True)
           for i in range(3)]
  opened = engine.generate(params, first, key)
  handles = [[c.handle] + [engine.fork(c.handle) for _ in range(forks - 1)] for c in opened]
  reqs = [engine_lib.Request(np.array([4, 5], np.int32), (i, 1 + f), 3, parent=h, **second)
          for i, hs in enumerate(handles) for f, h in enumerate(hs)]
  texts = [np.concatenate([first[i].prompt, opened[i].tokens, [4, 5]])
           for i in range(3) for _ in range(forks)]
  return reqs, texts


@pytest.mark.parametrize("forks", [1, 2])
def test_a_conversation_goes_on_behind_what_the_cache_holds(params, forks):
  engine = engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=8, prompt_buckets=(3, 6, 10),
                             max_tokens=6, capacity=16)
  reqs, texts = talk(params, engine, jax.random.key(0), forks)
  done = engine.generate(params, reqs, jax.random.key(1))
  assert engine.stats.reread == 0
  whole = engine.generate(params, [
      engine_lib.Request(t, r.seed, 3) for t, r in zip(texts, reqs)], jax.random.key(1))
  for c, w, t in zip(done, whole, texts):
    np.testing.assert_array_equal(c.tokens, w.tokens)
    np.testing.assert_allclose(c.logp, teacher_logp(params, t, c.tokens)[0], atol=1e-4)


@pytest.mark.parametrize("lose", ["slots", "weights", "used"])
def test_a_conversation_that_lost_its_slot_is_read_again(params, lose):
  engine = engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=2 if lose == "slots" else 4,
                             prompt_buckets=(3, 10), max_tokens=6, capacity=16)
  reqs, texts = talk(params, engine, jax.random.key(0), keep=lose == "used")
  if lose == "weights":
    params = jax.tree.map(lambda x: x * 1.1, params)
  if lose == "used":  # each handle has served its request; naming it again still works
    engine.generate(params, reqs, jax.random.key(2))
  done = engine.generate(params, reqs, jax.random.key(1))
  assert engine.stats.reread >= 1
  for c, t in zip(done, texts):
    np.testing.assert_allclose(c.logp, teacher_logp(params, t, c.tokens)[0], atol=1e-4)


def test_a_conversation_may_branch_without_new_tokens(params):
  engine = engine_lib.Engine(POLICY, stop_ids=(), slots=4, prompt_buckets=(4, 8), max_tokens=6,
                             capacity=16)
  first = engine.generate(params, [engine_lib.Request(
      np.array([2, 3], np.int32), (0, 0), 2, keep=True)], jax.random.key(0))[0]
  branches = [first.handle] + [engine.fork(first.handle) for _ in range(2)]
  none = np.zeros(0, np.int32)
  done = engine.generate(params, [engine_lib.Request(none, (0, 1 + i), 4, parent=h)
                                  for i, h in enumerate(branches)], jax.random.key(0))
  for c in done:
    text = np.concatenate([[2, 3], first.tokens])
    np.testing.assert_allclose(c.logp, teacher_logp(params, text, c.tokens)[0], atol=1e-4)
  assert len({c.tokens.tobytes() for c in done}) > 1


def test_a_role_goes_on_behind_what_a_prompt_shares_with_a_conversation(params):
  """Cut answers, other observations, another start altogether: as if all were read afresh."""
  def sampler():
    engine = engine_lib.Engine(POLICY, stop_ids=(), slots=4, prompt_buckets=(4, 8, 16),
                               max_tokens=6, capacity=24)
    return roles.Sampler(engine, lambda: params, None, {"max_tokens": 6}, {})

  one, seeds = sampler(), [(i, 0) for i in range(6)]
  first = [np.array([2, 1 + i], np.int32) for i in range(6)]
  said = one.generate(first, seeds, jax.random.key(0), keep=True)
  second = [np.concatenate([p, c.tokens[:4 - i % 3], [6, 5]]).astype(np.int32)
            for i, (p, c) in enumerate(zip(first, said))]
  second[3] = np.array([5, 5, 5], np.int32)
  got = one.generate(second, seeds, jax.random.key(1), handles=[c.handle for c in said])
  assert one.engine.stats.reread == 2  # six conversations were held in four slots
  want = sampler().generate(second, seeds, jax.random.key(1))
  for a, b in zip(got, want):
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_allclose(a.logp, b.logp, atol=1e-4)


@pytest.mark.parametrize("scan", [True, False])
def test_a_cache_of_8_bits_is_close(scan):
  """Close to, and different from, the exact one: log-probabilities within 0.05 of the trainer's."""
  policy = policy_lib.Policy(dataclasses.replace(CFG, scan=scan))
  params = policy.init(jax.random.key(3))
  engine = engine_lib.Engine(policy, stop_ids=(EOS,), slots=4, prompt_buckets=(3, 6), max_tokens=6,
                             cache_bits=8)
  codes = engine._shape.cache[0] if scan else engine._shape.cache[0][0]
  assert codes.k.dtype == codes.v.dtype == jnp.int8
  rs = requests(9)
  done = engine.generate(params, rs, jax.random.key(0))
  gaps = np.concatenate([np.abs(c.logp - teacher_logp(params, r.prompt, c.tokens)[0])
                         for r, c in zip(rs, done)])
  assert 1e-6 < gaps.max() < 0.05
  with pytest.raises(ValueError, match="cache_bits=4"):
    engine_lib.Engine(policy, stop_ids=(), slots=4, prompt_buckets=(3,), max_tokens=6, cache_bits=4)


def test_a_released_conversation_gives_its_slot_back(params, engine):
  kept = engine.generate(params, [engine_lib.Request(
      np.array([2], np.int32), (0, 0), 2, keep=True)], jax.random.key(0))[0]
  assert len(engine.book.free()[0]) == engine.slots - 1
  engine.release(kept.handle)
  assert len(engine.book.free()[0]) == engine.slots


def test_a_prompt_longer_than_any_bucket_is_read_in_parts(params):
  engine = engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=4, prompt_buckets=(2, 4), max_tokens=6,
                             capacity=24)
  prompt = np.random.default_rng(0).integers(2, 7, 15).astype(np.int32)
  for c in engine.generate(params, [engine_lib.Request(prompt, (0, i), 6) for i in range(6)],
                           jax.random.key(0)):
    np.testing.assert_allclose(c.logp, teacher_logp(params, prompt, c.tokens)[0], atol=1e-4)


@pytest.mark.parametrize("change, message", [
    ({"prompt": np.zeros(11, np.int32)}, "11 tokens of prompt and max_tokens=2 do not fit .* 12"),
    ({"prompt": np.zeros(0, np.int32)}, "an empty prompt"),
    ({"max_tokens": 7}, "max_tokens=7; 1 to 6"), ({"temperature": 0.0}, "must be positive"),
    ({"top_p": 0.0}, "top_p=0.0"), ({"min_p": 1.0}, "min_p=1.0"), ({"top_k": -1}, "top_k=-1"),
    ({"stop_sequences": [[2, 3, 4]]}, "a stop sequence of 3 tokens; 1 to 2 can occur"),
    ({"stop_sequences": [[2]] * 5}, "5 stop sequences; at most 4"),
    ({"stop_ids": range(2, 10)}, "9 stop ids; at most 8"), ({"allowed": []}, "no token is allowed"),
    ({"forced": [2, 3, 4]}, "3 forced tokens"),
    ({"prompt": np.array([7], np.int32)}, "prompt has token ids outside 0 to 6")])
def test_requests_that_do_not_fit(params, engine, change, message):
  base = {"prompt": np.array([2], np.int32), "seed": (0, 0), "max_tokens": 2}
  with pytest.raises(ValueError, match=message):
    engine.generate(params, [engine_lib.Request(**{**base, **change})], jax.random.key(0))


def test_warp_without_filters_is_log_softmax():
  z = jax.random.normal(jax.random.key(0), (3, 9))
  ones, zeros = jnp.ones(3), jnp.zeros(3)
  out = warp.warp(z, temperature_S=2 * ones, top_k_S=zeros.astype(int), top_p_S=ones, min_p_S=zeros)
  np.testing.assert_allclose(out, jax.nn.log_softmax(z / 2), atol=1e-6)


def test_more_forks_than_slots(params):
  """Conversations that keep every slot give way, one after the other, to those that go on."""
  engine = engine_lib.Engine(POLICY, stop_ids=(), slots=4, prompt_buckets=(4,), max_tokens=2,
                             capacity=16)
  key = jax.random.key(1)
  first = engine.generate(params, [engine_lib.Request(
      np.array([2, 3 + i], np.int32), (i, 0), 2, keep=True) for i in range(4)], key)
  forks = [engine.fork(c.handle) for c in first for _ in range(3)]
  tail = np.array([5], np.int32)
  after = engine.generate(params, [engine_lib.Request(tail, (i, 1), 2, parent=h)
                                   for i, h in enumerate(forks)], key)
  alone = engine_lib.Engine(POLICY, stop_ids=(), slots=4, prompt_buckets=(8,), max_tokens=2)
  for i, c in enumerate(after):
    prompt = np.concatenate([[2, 3 + i // 3], first[i // 3].tokens, tail]).astype(np.int32)
    want = alone.generate(params, [engine_lib.Request(prompt, (i, 1), 2)], key)[0]
    np.testing.assert_array_equal(c.tokens, want.tokens)
