"""SPR and its agent: the loss by hand, the pitfalls, and that each knob changes numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import optim
from rljax.classic import dqn, measure, nets, pixels, replay, worlds

SPR = config_lib.load_file("experiments/spr.py")
ENV = pixels.catch(size=8, horizon=6)
ENCODER = functools.partial(nets.convolution, channels=(3, 4), renormalise=True)


def small(**knobs):
  settings = dict(encoder=ENCODER, hidden=6, n_step=2, updates=1, batch=4, capacity=20, warmup=8,
                  augment=dqn.shift, auxiliary=functools.partial(SPR.self_prediction, steps=3))
  return dqn.dqn(ENV, **{**settings, **knobs})


def network():
  return dqn.Network(ENV, ENCODER(ENV), 6, False, None)


def windows(key, batch=5, steps=3):
  obs = jax.random.uniform(key, (batch, steps + 1, 8, 8, 3))
  action = jax.random.randint(key, (batch, steps), 0, 5)
  done = jnp.array([[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]], bool)
  return obs, action, replay.alive(done)


def setup(**knobs):
  net = network()
  aux = SPR.self_prediction(ENV, net, **{"steps": 3, **knobs})
  keys = jax.random.split(jax.random.key(0), 3)
  params = net.init(keys[0]) | {"auxiliary": aux.init(keys[1])}
  followed = net.init(keys[2]) | {"auxiliary": aux.init(keys[1])}
  return net, aux, params, followed


@pytest.mark.slow
def test_the_loss_is_the_papers_masked_mean():
  net, aux, params, followed = setup()
  obs, action, alive = windows(jax.random.key(1))
  latent = jax.vmap(lambda o: net.encode(params, o))(obs[:, 0])
  got, _ = aux.loss(params, followed, latent, obs, action, alive)
  own = params["auxiliary"]
  for b in range(5):
    z, total = latent[b], 0.0
    for k in (1, 2, 3):
      planes = np.zeros((*z.shape[:2], 5), np.float32)
      planes[..., int(action[b, k - 1])] = 1
      x = jax.nn.relu(nets.conv(own["in"], jnp.concatenate([z, planes], -1), size=3))
      z = jax.nn.relu(nets.conv(own["out"], x, size=3))
      z = (z - z.min()) / (z.max() - z.min() + 1e-5)
      p = np.asarray(nets.dense(own["predictor"], net.project(params, z)))
      y = np.asarray(net.project(followed, net.encode(followed, obs[b, k])))
      p, y = p / np.linalg.norm(p), y / np.linalg.norm(y)
      total += float(alive[b, k]) * np.sum((p - y) ** 2)  # = 2 - 2 cos
    assert float(got[b]) == pytest.approx(total / 3, abs=1e-4)
  assert alive[2, 1:].sum() == 0 and float(got[2]) == 0  # ended at once: nothing to predict


def test_cosine_of_a_zero_vector_is_zero_and_its_gradient_finite():
  x, y = jnp.zeros((1, 4)), jnp.ones((1, 4))
  assert SPR.cosine(x, y).tolist() == [0.0]
  assert np.isfinite(jax.grad(lambda v: SPR.cosine(v, y).sum())(x)).all()
  np.testing.assert_allclose(SPR.cosine(3 * y, y), 1.0, rtol=1e-6)


def test_a_constant_latent_is_renormalised_to_zero_with_a_finite_gradient():
  assert float(nets.min_max(jnp.full((3, 3), 7.0)).max()) == 0
  assert np.isfinite(jax.grad(lambda x: nets.min_max(x).sum())(jnp.full((3, 3), 7.0))).all()


@pytest.mark.slow
def test_gradients_reach_the_teacher_only_without_stop_gradient():
  obs, action, alive = windows(jax.random.key(1))

  def slope(**knobs):
    net, aux, params, followed = setup(**knobs)
    latent = jax.lax.stop_gradient(jax.vmap(lambda o: net.encode(params, o))(obs[:, 0]))
    total = lambda p: aux.loss(p, followed, latent, obs, action, alive)[0].sum()
    return jax.grad(total)(params)
  size = lambda tree: sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree))
  assert size(slope()["encoder"]) == 0 < size(slope(stop_gradient=False)["encoder"])
  assert size(slope()["auxiliary"]["predictor"]) > 0
  assert size(slope(predictor=False)["auxiliary"]["predictor"]) == 0


def test_shifts_are_drawn_anew_for_every_image():
  image = jax.random.uniform(jax.random.key(0), (8, 8, 3))
  out = jax.vmap(lambda k: dqn.shift(k, image, pixels=2, jitter=0.0))(
      jax.random.split(jax.random.key(1), 400))
  moved = {tuple(np.asarray(o[3, 3])) for o in out}
  assert len(moved) == 25  # every shift in [-2, 2]^2
  assert all(tuple(np.asarray(image[i, j])) in moved for i in (1, 5) for j in (1, 5))
  bright = dqn.shift(jax.random.key(2), image, pixels=0, jitter=0.05) / image
  assert float(bright.std()) < 1e-5 and 0.899 <= float(bright.mean()) <= 1.101


def run(agent, steps=14, seed=0):
  state = agent.init(jax.random.key(seed))
  return jax.jit(lambda s, k: jax.lax.scan(agent.step, s, jax.random.split(k, steps)))(
      state, jax.random.key(seed + 1))


def plain(**knobs):
  """A Q-learner of a chain: it compiles in a moment."""
  settings = dict(hidden=6, n_step=2, updates=1, batch=4, capacity=20, warmup=8, eps_steps=20)
  return dqn.dqn(worlds.chain(right=2, left=2, horizon=5), **{**settings, **knobs})


def test_nothing_is_learned_before_the_warm_up():
  """The ninth step is the first to learn."""
  state, metrics = run(plain(), 8)
  assert int(state["train"].step) == 0 and float(metrics["loss/td"].weight.sum()) == 0
  state, metrics = run(plain(), 12)
  assert int(state["train"].step) == 4 and float(metrics["loss/td"].weight.sum()) == 4 * 4


KNOBS = {"hidden": 7, "dueling": True, "atoms": 5, "double": False, "n_step": 1, "gamma": 0.5,
         "updates": 2, "batch": 5, "capacity": 11, "warmup": 9, "eps_end": 0.9, "eps_steps": 2,
         "target_step": 0.9, "alpha": 0.9, "optimizer": functools.partial(optim.adamw, lr=0.1),
         "encoder": lambda env: nets.Net(lambda key: {}, lambda p, obs: jnp.full((3,), 1.0 + obs))}


def fingerprint(agent, steps=40):
  state, _ = run(agent, steps)
  return float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(state["train"].params)))


@pytest.mark.slow
def test_every_knob_changes_the_agent():
  base = fingerprint(plain())
  assert fingerprint(plain()) == base
  for name, other in KNOBS.items():
    assert fingerprint(plain(**{name: other})) != base, name
  assert fingerprint(plain(alpha=0.9, beta=1.0)) != fingerprint(plain(alpha=0.9))
  assert fingerprint(plain(atoms=5, v_max=2.0)) != fingerprint(plain(atoms=5))


@pytest.mark.slow
def test_every_knob_of_the_auxiliary_loss_changes_the_agent():
  base = fingerprint(small(), 14)
  assert fingerprint(small(augment=None), 14) != base
  for name, other in {"steps": 2, "weight": 1.0, "target_step": 0.1, "stop_gradient": False,
                      "predictor": False, "channels": 5}.items():
    aux = functools.partial(SPR.self_prediction, **{"steps": 3, name: other})
    assert fingerprint(small(auxiliary=aux), 14) != base, name


def test_q_learning_finds_the_values_of_a_short_chain():
  env = worlds.chain(right=2, left=2, slip=0.0, horizon=8)
  agent = dqn.dqn(env, hidden=32, updates=1, batch=16, capacity=500, warmup=50, eps_end=0.5,
                  eps_steps=1, gamma=0.9, target_step=0.1,
                  optimizer=functools.partial(optim.adamw, lr=3e-3))
  state, _ = run(agent, 900)
  found = measure.exact(env, agent, state, None, gamma=0.9)
  assert float(found["share"]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_probe_and_spread_have_known_ends():
  """A view that is the facts has no error; one that is constant has no spread and tells nothing."""
  agent = small(auxiliary=None)
  state = agent.init(jax.random.key(0))
  bright = lambda state, obs: jnp.where(obs[:, :, -1] == 170, 1.0, 0.0)  # where the target is
  views = {"target": bright, "flat": lambda state, obs: jnp.ones(5),
           "noise": lambda state, obs: jax.random.normal(jax.random.key(
               jnp.sum(obs.astype(jnp.int32))), (9,))}
  agent = dqn.agent_lib.Agent(agent.init, agent.step, agent.policy, 1, views)
  look = functools.partial(measure.probe, ENV, agent, state, jax.random.key(1), count=400,
                           held_out=200, steps=3)
  assert float(look(view="target")["error"]) < 0.8 < float(look(view="flat")["error"])
  collapsed = measure.spread(ENV, agent, state, jax.random.key(1), view="flat", count=50)
  even = measure.spread(ENV, agent, state, jax.random.key(1), view="noise", count=400)
  assert float(collapsed["std"]) < 1e-3 and float(even["std"]) == pytest.approx(1.0, abs=0.05)


def test_refusals():
  with pytest.raises(config_lib.ConfigError, match="window < warmup < capacity"):
    plain(warmup=2)
