"""Q-learning from replay: double, dueling, n-step, distributional, prioritised; each by a knob.

The parts are those of Rainbow (https://arxiv.org/abs/1710.02298), without its noisy layers.
Letters: B rows of an update, W steps of a window, A actions, M atoms.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import config as config_lib
from rljax import optim, types
from rljax.classic import agent as agent_lib
from rljax.classic import env as env_lib
from rljax.classic import nets, replay, td
from rljax.train import step as step_lib
from rljax.types import Array, Loss, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A Q-network in parts: observation -> latent -> features -> values or their distributions.

  Parameters are {"encoder", "head", ...}. `support_M` is None for expected values.
  """

  env: env_lib.Env
  encoder: nets.Net
  hidden: int
  dueling: bool
  support_M: Array | None

  @property
  def latent_shape(self) -> tuple[int, ...]:
    return nets.latent_shape(self.env, self.encoder)

  def init(self, key: Array) -> PyTree:
    keys, A = jax.random.split(key, 4), self.env.n_actions
    M = 1 if self.support_M is None else len(self.support_M)
    size = nets.latent_size(self.env, self.encoder)
    head = {"first": nets.dense_init(keys[1], size, self.hidden),
            "out": nets.dense_init(keys[2], self.hidden, A * M, scale=0.01)}
    if self.dueling:
      head["value"] = nets.dense_init(keys[3], self.hidden, M, scale=0.01)
    return {"encoder": self.encoder.init(keys[0]), "head": head}

  def encode(self, params: PyTree, obs: Array) -> Array:
    return self.encoder.apply(params["encoder"], obs)

  def project(self, params: PyTree, latent: Array) -> Array:
    """The features [hidden] before their ReLU: the head's first linear layer."""
    return nets.dense(params["head"]["first"], latent.reshape(-1))

  def out(self, params: PyTree, latent: Array) -> Array:
    """Values [A], or logits of their distributions [A, M]."""
    features = jax.nn.relu(self.project(params, latent))
    out_AM = nets.dense(params["head"]["out"], features).reshape(self.env.n_actions, -1)
    if self.dueling:
      value_1M = nets.dense(params["head"]["value"], features)[None]
      out_AM = value_1M + out_AM - jnp.mean(out_AM, axis=0, keepdims=True)
    return out_AM[:, 0] if self.support_M is None else out_AM

  def values(self, params: PyTree, obs: Array) -> Array:
    """[A]."""
    out = self.out(params, self.encode(params, obs))
    return out if self.support_M is None else td.expected(out[None], self.support_M)[0]


class Auxiliary(NamedTuple):
  """A second loss on the same windows; a leaf is `(env, network, *, knobs) -> Auxiliary`.

  Attributes:
    init: key -> its own parameters, trained with the agent's under the name "auxiliary".
    steps: how far behind the first observation of a window it looks.
    loss: (params, followed, latent_B..., observations [B, 1 + steps, ...], actions [B, steps],
      alive [B, 1 + steps]) -> (loss per row [B], metrics); latents are of the first observations,
      under the agent's own view of them; `alive` is 1 where the observation is of their episode.
    weight: of the loss.
    target_step: of `followed`, a copy of the parameters that is moved so far towards them after
      each update (1 = equal to them).
  """

  init: Callable
  steps: int
  loss: Callable
  weight: float
  target_step: float


class Item(NamedTuple):
  """A stored step."""

  obs: Array
  action: Array
  reward: Array
  done: Array


def shift(key: Array, image_HWC: Array, *, pixels: int = 1, jitter: float = 0.05) -> Array:
  """A random shift with the border repeated, and a random brightness: DrQ's augmentation.

  https://arxiv.org/abs/2004.13649: brightness is multiplied by 1 + jitter clip(N(0, 1), -2, 2).

  Args:
    key: of one image. image_HWC: float.
    pixels: largest shift along each axis. jitter: see above.
  """
  for_shift, for_light = jax.random.split(key)
  padded = jnp.pad(image_HWC, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
  y, x = jax.random.randint(for_shift, (2,), 0, 2 * pixels + 1)
  moved = jax.lax.dynamic_slice(padded, (y, x, 0), image_HWC.shape)
  return moved * (1.0 + jitter * jnp.clip(jax.random.normal(for_light), -2.0, 2.0))


def dqn(env: env_lib.Env, *, encoder: Callable = nets.flat, hidden: int = 128,
        dueling: bool = False, atoms: int = 0, v_max: float = 10.0, double: bool = True,
        n_step: int = 1, gamma: float = 0.99, optimizer: Callable = optim.adamw,
        updates: int = 1, batch: int = 32, capacity: int = 10_000, warmup: int = 500,
        eps_end: float = 0.05, eps_steps: int = 1000, target_step: float = 0.01,
        alpha: float = 0.0, beta: float = 0.4, augment: Callable | None = None,
        auxiliary: Callable | None = None) -> agent_lib.Agent:
  """One step in the environment, then `updates` updates from replay.

  Args:
    encoder: env -> `Net` of a latent. hidden: width of the head's layer in between.
    dueling: separate value and advantages (https://arxiv.org/abs/1511.06581).
    atoms: of a distribution over [-v_max, v_max] (C51); 0 = expected values and a Huber loss.
    double: the online net chooses the next action (`td.bootstrap`).
    n_step, gamma: of the returns.
    updates, batch: per environment step, and rows of each.
    capacity: steps of the replay. warmup: random steps before the first update.
    eps_end, eps_steps: chance of a random action, from 1 linearly to `eps_end` after the warm-up.
    target_step: the target net moves so far towards the online net at each update; 1 = copy.
    alpha, beta: of prioritised replay; alpha=0 is uniform. Priorities come from the TD loss alone.
    augment: (key, image) -> image, drawn anew for every image and use; None = without.
    auxiliary: a leaf of `Auxiliary`; None = without.

  Raises:
    ConfigError: several seats, or a replay too small for the warm-up or a window.
  """
  if env.seats > 1:
    raise config_lib.ConfigError("dqn acts for one seat")
  support_M = jnp.linspace(-v_max, v_max, atoms) if atoms else None
  network = Network(env, encoder(env), hidden, dueling, support_M)
  aux = auxiliary(env, network) if auxiliary else None
  window = max(n_step, aux.steps if aux else 0)
  if not window < warmup < capacity:
    raise config_lib.ConfigError(f"dqn needs window < warmup < capacity, found {window}, {warmup}, "
                                 f"{capacity}")
  made, A = optimizer(), env.n_actions
  learning = _Learning(network, aux, augment, batch, window, n_step, gamma, double, alpha, beta,
                       target_step)
  learn = functools.partial(learning.learn, step_lib.make(
      learning.losses, learning.objective, made, monitors=False))

  def learn_often(state, key):
    state, metrics = jax.lax.scan(learn, state, jax.random.split(key, updates))
    return state, agent_lib.folded(metrics)

  def init(key):
    for_env, for_net, for_aux = jax.random.split(key, 3)
    at = env.reset(for_env)
    params = network.init(for_net) | ({"auxiliary": aux.init(for_aux)} if aux else {})
    copy = lambda: jax.tree.map(jnp.copy, params)
    item = Item(env.observe(at), jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros((), bool))
    return {"train": step_lib.init_state(params, made), "target": copy(),
            **({"followed": copy()} if aux else {}),
            "replay": replay.create(item, capacity), "env": at}

  def step(state, key):
    for_act, for_step, for_learn = jax.random.split(key, 3)
    obs, since = env.observe(state["env"]), state["replay"].total - warmup
    eps = jnp.clip(1.0 - since / eps_steps * (1.0 - eps_end), eps_end, 1.0)
    action, _ = agent_lib.draw((1.0 - eps) * policy(state, obs) + eps / A, for_act)
    at, _, reward, done = env_lib.auto_reset(env)(state["env"], action, for_step)
    state = {**state, "env": at, "replay": replay.add(
        state["replay"], Item(obs, action.astype(jnp.int32), reward, done))}
    like = jax.eval_shape(learn_often, state, for_learn)[1]
    rest = lambda state, key: (state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))
    state, metrics = jax.lax.cond(since >= 0, learn_often, rest, state, for_learn)
    one = jnp.ones(())
    return state, {**metrics, "reward/mean": types.Mean(reward, one), "policy/epsilon": types.Mean(
        eps, one), "episode/ends": types.Mean(done.astype(jnp.float32), one)}

  def policy(state, obs):
    return jax.nn.one_hot(jnp.argmax(network.values(state["train"].params, obs)), A)

  latent = lambda state, obs: network.encode(state["train"].params, obs)
  features = lambda state, obs: network.project(state["train"].params, latent(state, obs))
  return agent_lib.Agent(init, step, policy, 1, {"latent": latent, "projection": features})


@dataclasses.dataclass(frozen=True, eq=False)
class _Learning:
  """One update from replay; fields as the knobs of `dqn`, `window` steps behind the first."""

  network: Network
  aux: Auxiliary | None
  augment: Callable | None
  batch: int
  window: int
  n_step: int
  gamma: float
  double: bool
  alpha: float
  beta: float
  target_step: float

  def seen(self, key: Array, obs_B: Array) -> Array:
    """Observations as the nets see them in an update: float, each augmented on its own."""
    if self.network.env.n_states:
      return obs_B
    obs_B = nets.unit(obs_B)
    if self.augment is None:
      return obs_B
    return jax.vmap(self.augment)(jax.random.split(key, obs_B.shape[0]), obs_B)

  def target(self, params: PyTree, target: PyTree, rows: dict) -> Array:
    """What the action's value [B], or distribution [B, M], is pulled towards."""
    net = self.network
    each = lambda f, p: jax.vmap(f, in_axes=(None, 0))(p, rows["next_B"])
    chooser_BA = each(net.values, params if self.double else target)
    if net.support_M is None:
      return rows["return_B"] + rows["discount_B"] * td.bootstrap(
          each(net.values, target), chooser_BA)
    logits_BAM = each(lambda p, obs: net.out(p, net.encode(p, obs)), target)
    best_B11 = jnp.argmax(chooser_BA, axis=-1)[:, None, None]
    prob_BM = jax.nn.softmax(jnp.take_along_axis(logits_BAM, best_B11, axis=1)[:, 0])
    return td.project(prob_BM, rows["return_B"], rows["discount_B"], net.support_M)

  def losses(self, params: PyTree, rows: dict) -> dict:
    """Per row: the TD loss, and with the auxiliary one added."""
    net, aux = self.network, self.aux
    latent_B = jax.vmap(net.encode, in_axes=(None, 0))(params, rows["first_B"])
    out_BA = jax.vmap(net.out, in_axes=(None, 0))(params, latent_B)
    index = rows["action_BW"][:, 0].reshape(-1, *(1,) * (out_BA.ndim - 1))
    out_B = jnp.take_along_axis(out_BA, index, axis=1)[:, 0]
    td_B = (td.huber(jax.lax.stop_gradient(rows["target_B"]) - out_B)
            if net.support_M is None else td.cross_entropy(rows["target_B"], out_B))
    if aux is None:
      return {"td_B": td_B, "all_B": td_B, "metrics": {}}
    aux_B, metrics = aux.loss(params, rows["followed"], latent_B, rows["obs_BW"],
                              rows["action_BW"][:, :aux.steps], rows["alive_BW"][:, :1 + aux.steps])
    metrics = {**metrics, "loss/auxiliary": types.Mean(jnp.sum(aux_B), jnp.float32(self.batch))}
    return {"td_B": td_B, "all_B": td_B + aux.weight * aux_B, "metrics": metrics}

  def objective(self, found: dict, rows: dict) -> Loss:
    count = jnp.float32(self.batch)
    metrics = {**found["metrics"], "loss/td": types.Mean(jnp.sum(found["td_B"]), count),
               "td_B": found["td_B"]}  # no metric: `learn` takes it out, for the priorities
    return Loss(jnp.sum(rows["weight_B"] * found["all_B"]), count, metrics)

  def learn(self, update: Callable, state: dict, key: Array) -> tuple[dict, dict]:
    keys, n, aux = jax.random.split(key, 4), self.n_step, self.aux
    memory = state["replay"]
    index_B, weight_B = replay.sample(memory, keys[0], self.batch, window=self.window + 1,
                                      alpha=self.alpha, beta=self.beta)
    item = replay.windows(memory, index_B, self.window + 1)
    return_B, discount_B = replay.n_step(item.reward[:, :n], item.done[:, :n], self.gamma)
    rows = {"first_B": self.seen(keys[1], item.obs[:, 0]),
            "next_B": self.seen(keys[2], item.obs[:, n]), "action_BW": item.action,
            "return_B": return_B, "discount_B": discount_B, "weight_B": weight_B,
            "alive_BW": replay.alive(item.done)}
    rows["target_B"] = self.target(state["train"].params, state["target"], rows)
    if aux:
      obs = item.obs[:, :1 + aux.steps]
      rows["obs_BW"] = self.seen(keys[3], obs.reshape(-1, *obs.shape[2:])).reshape(obs.shape)
      rows["followed"] = state["followed"]
    train, metrics = update(state["train"], rows)
    td_B = metrics.pop("td_B")
    state = {**state, "train": train,
             "target": td.polyak(state["target"], train.params, step=self.target_step)}
    if aux:
      state["followed"] = td.polyak(state["followed"], train.params, step=aux.target_step)
    if self.alpha:
      state["replay"] = replay.prioritise(memory, index_B, td_B + 1e-3)
    return state, metrics
