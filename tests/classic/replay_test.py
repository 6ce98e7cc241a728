"""Replay and TD targets against loops written from the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.classic import replay, td

C = 8


def filled(n):
  ring = replay.create(jnp.zeros((), jnp.int32), C)
  for i in range(n):
    ring = replay.add(ring, jnp.int32(i))
  return ring


@pytest.mark.parametrize("stored", [3, 8, 11, 16, 21])
def test_windows_are_consecutive_steps_and_never_cross_the_seam(stored):
  ring, window = filled(stored), 3
  index, weight = replay.sample(ring, jax.random.key(0), 400, window=window)
  found = np.asarray(replay.windows(ring, index, window))
  assert (np.diff(found, axis=1) == 1).all() and (weight == 1).all()
  oldest = max(0, stored - C)
  assert set(found[:, 0]) == set(range(oldest, stored - window + 1))  # all of them, no other


def test_priorities_set_the_shares_and_the_weights_undo_them():
  ring, alpha, beta = filled(C), 0.5, 1.0
  priority = np.array([1, 4, 9, 1, 1, 16, 1, 1.0], np.float32)
  ring = replay.prioritise(ring, jnp.arange(C), jnp.asarray(priority))
  index, weight = replay.sample(ring, jax.random.key(1), 40_000, window=2, alpha=alpha, beta=beta)
  shares = np.bincount(np.asarray(index), minlength=C) / 40_000
  wanted = np.where(np.arange(C) < 7, np.sqrt(priority), 0)  # the newest cannot start two steps
  np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=0.01)
  by_index = dict(zip(index.tolist(), weight.tolist()))
  for i, w in by_index.items():  # (N P)^-1 over its largest, that of priority 1
    assert w == pytest.approx(1 / np.sqrt(priority[i]), rel=1e-5)
  assert float(replay.add(ring, jnp.int32(9)).priority_C[0]) == 16  # new steps get the largest


def test_n_step_returns_stop_at_the_first_end():
  rs = np.random.default_rng(0)
  reward, done = rs.normal(size=(50, 4)).astype(np.float32), rs.random((50, 4)) < 0.3
  got, later = replay.n_step(jnp.asarray(reward), jnp.asarray(done), 0.9)
  for b in range(50):
    total, live = 0.0, 1.0
    for k in range(4):
      total += live * 0.9**k * reward[b, k]
      live *= 1.0 - done[b, k]
    assert float(got[b]) == pytest.approx(total, abs=1e-5)
    assert float(later[b]) == pytest.approx(live * 0.9**4, abs=1e-6)


def test_alive_covers_the_end_and_nothing_after_it():
  done = jnp.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
  assert replay.alive(done).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


def c51_loop(prob, g, discount, support):
  """The projection as the paper's algorithm 1 states it."""
  low, high, M = support[0], support[-1], len(support)
  gap, out = (high - low) / (M - 1), np.zeros(M)
  for j in range(M):
    b = (np.clip(g + discount * support[j], low, high) - low) / gap
    lower, upper = int(np.floor(b)), int(np.ceil(b))
    if lower == upper:
      out[lower] += prob[j]
    else:
      out[lower] += prob[j] * (upper - b)
      out[upper] += prob[j] * (b - lower)
  return out


def test_the_projection_is_the_papers_loop():
  rs, support = np.random.default_rng(1), np.linspace(-2, 2, 9)
  prob = rs.dirichlet(np.ones(9), size=40)
  g = np.concatenate([rs.normal(scale=2, size=30), np.arange(-5, 5) / 2])  # some fall on atoms
  discount = np.where(np.arange(40) % 5, 0.9, 0.0)
  got = td.project(*(jnp.asarray(x, jnp.float32) for x in (prob, g, discount, support)))
  for b in range(40):
    np.testing.assert_allclose(got[b], c51_loop(prob[b], g[b], discount[b], support), atol=1e-5)


def test_the_projection_keeps_the_mean_inside_of_the_support():
  support = jnp.linspace(-10, 10, 51)
  prob = jax.nn.softmax(jax.random.normal(jax.random.key(0), (5, 51)))
  out = td.project(prob, jnp.full(5, 0.3), jnp.full(5, 0.5), support)
  np.testing.assert_allclose(out @ support, 0.3 + 0.5 * prob @ support, atol=1e-4)
  np.testing.assert_allclose(out.sum(1), 1.0, atol=1e-5)


def test_double_q_lets_one_net_choose_and_the_other_judge():
  judge, chooser = jnp.array([[1.0, 5.0], [2.0, 3.0]]), jnp.array([[9.0, 0.0], [0.0, 1.0]])
  assert td.bootstrap(judge, chooser).tolist() == [1.0, 3.0]
  assert td.bootstrap(judge, judge).tolist() == [5.0, 3.0]


def test_huber_is_square_then_linear():
  assert td.huber(jnp.array([0.5, -0.5, 3.0])).tolist() == [0.125, 0.125, 2.5]
  np.testing.assert_allclose(jax.vmap(jax.grad(td.huber))(jnp.array([0.5, -4.0])), [0.5, -1.0])


def test_polyak_names_the_step_towards_the_online_net():
  old, new = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
  assert td.polyak(old, new, step=1.0)["w"].tolist() == [1, 1]
  np.testing.assert_allclose(td.polyak(old, new, step=0.01)["w"], 0.01)
