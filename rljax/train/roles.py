"""Roles: named models, and who owns, shares, follows or freezes which weights."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rljax import config as config_lib
from rljax import optim, rng, sharding
from rljax.sampling import engine as engine_lib
from rljax.train import step as step_lib
from rljax.types import PyTree, TrainState


@dataclasses.dataclass(frozen=True)
class Role:
  """One named model.

  Attributes:
    policy: its pure functions.
    train: it has an optimizer state of its own.
    shares: name of the role whose weights it uses; "" = its own.
    init: (key) -> params, or the name of the role to copy at the start.
    follow, decay: after each update, weights <- decay * weights + (1 - decay) * those of `follow`.
  """

  policy: object
  train: bool
  shares: str
  init: Callable | str
  follow: str
  decay: float


class Roles:
  """All models of a run. `states[name]` is a TrainState for a trained role, params if frozen."""

  def __init__(self, specs: dict[str, Role], optimizers: dict[str, optim.Optimizer], mesh,
               seed: int):
    self.specs, self.optimizers, self.mesh, self.seed = specs, optimizers, mesh, seed
    self.states: dict[str, TrainState | PyTree] = {}
    for name, spec in specs.items():
      for other in filter(None, (spec.shares, spec.follow,
                                 isinstance(spec.init, str) and spec.init)):
        if other not in specs:
          raise config_lib.ConfigError(f"roles.{name} refers to {other!r}, which is not a role")
    self._ema = jax.jit(lambda a, b, decay: jax.tree.map(
        lambda x, y: (decay * x + (1 - decay) * y).astype(x.dtype), a, b),
        donate_argnums=0, static_argnums=2)

  def owner(self, name: str) -> str:
    while self.specs[name].shares:
      name = self.specs[name].shares
    return name

  def init(self) -> None:
    """Creates all weights: own ones first, then copies of roles, in the order of need."""
    waiting = [n for n, s in self.specs.items() if not s.shares]
    while waiting:
      ready = [n for n in waiting
               if not isinstance(self.specs[n].init, str) or self.specs[n].init in self.states]
      if not ready:
        raise config_lib.ConfigError(f"roles {', '.join(waiting)} start as copies of each other")
      for name in ready:
        self.states[name] = self._create(name)
        waiting.remove(name)

  def _create(self, name):
    spec = self.specs[name]
    if isinstance(spec.init, str):
      params = jax.tree.map(jnp.copy, self.params(spec.init))
    else:
      params = spec.init(rng.key(self.seed, "init", name))
    params = sharding.put_replicated(params, self.mesh)
    if not spec.train:
      return params
    make = jax.jit(lambda p: step_lib.init_state(p, self.optimizers[name]))
    return sharding.put_replicated(make(params), self.mesh)

  def abstract(self) -> dict[str, PyTree]:
    """The states as shapes with shardings, without creating a weight: what a restore needs."""
    out = {}
    for name, spec in self.specs.items():
      if spec.shares:
        continue
      shapes = jax.eval_shape(spec.policy.init, jax.random.key(0))
      if spec.train:
        shapes = jax.eval_shape(
            lambda p, n=name: step_lib.init_state(p, self.optimizers[n]), shapes)
      place = sharding.replicated(self.mesh)
      out[name] = jax.tree.map(
          lambda x, place=place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    return out

  def params(self, name: str) -> PyTree:
    state = self.states[self.owner(name)]
    return state.params if isinstance(state, TrainState) else state

  def follow(self, updated: str) -> None:
    """Moves every role that follows the updated one."""
    for name, spec in self.specs.items():
      if spec.follow and self.owner(spec.follow) == self.owner(updated):
        self.states[name] = self._ema(self.states[name], self.params(spec.follow), spec.decay)


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A role that can speak: an engine, its weights, and the run's sampling settings.

  `limits` holds the tokens of an episode: "prompt", "response", "observation".

  Rollouts call `generate(prompts, seeds, ...)`; the key of the phase (step or evaluation) is bound.
  """

  engine: engine_lib.Engine
  params: Callable[[], PyTree]
  tokenizer: object
  defaults: dict
  limits: dict

  def generate(self, prompts: Sequence[np.ndarray], seeds: Sequence[tuple[int, int]], key,
               **settings) -> list[engine_lib.Completion]:
    """One completion per prompt.

    Args:
      prompts: int32 token ids. seeds: (task number, sample number) per prompt.
      key: jax key of this phase.
      **settings: override the run's (temperature, top_k, top_p, min_p, max_tokens, greedy);
        max_tokens may be one number per prompt.
    """
    settings = {**self.defaults, **settings}
    most = np.broadcast_to(settings.pop("max_tokens"), len(prompts)).tolist()
    requests = [engine_lib.Request(p, s, max_tokens=m, **settings)
                for p, s, m in zip(prompts, seeds, most, strict=True)]
    return self.engine.generate(self.params(), requests, key)


class Scorer:
  """Teacher-forced log-probabilities of continuations, batched and bucketed: `ctx.score`."""

  def __init__(self, roles: Roles, *, rows: int, buckets: Sequence[int]):
    self._roles, self._rows, self._buckets = roles, rows, sorted(buckets)
    self._jitted: dict[str, Callable] = {}

  def __call__(self, role: str, prefixes: Sequence[np.ndarray], continuations: Sequence[np.ndarray]
               ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per pair, (logp, entropy) of each continuation token given what precedes it, float32.

    Raises:
      ValueError: an empty prefix, or a pair longer than the largest bucket.
    """
    out: list = [None] * len(prefixes)
    by_bucket: dict[int, list[int]] = {}
    for i, (p, c) in enumerate(zip(prefixes, continuations, strict=True)):
      n = len(p) + len(c) - 1
      if not len(p) or n > self._buckets[-1]:
        raise ValueError(f"score: pair {i} has {len(p)} + {len(c)} tokens; "
                         f"1 to {self._buckets[-1] + 1} fit, with at least one before")
      by_bucket.setdefault(next(b for b in self._buckets if b >= n), []).append(i)
    for bucket, indices in by_bucket.items():
      for at in range(0, len(indices), self._rows):
        self._wave(role, bucket, indices[at:at + self._rows], prefixes, continuations, out)
    return out

  def _wave(self, role, bucket, indices, prefixes, continuations, out):
    from rljax import types
    B = self._rows
    tokens, actions = np.zeros((B, bucket), np.int32), np.zeros((B, bucket), np.int32)
    pos = np.tile(np.arange(bucket, dtype=np.int32), (B, 1))
    for row, i in enumerate(indices):
      text = np.concatenate([prefixes[i], continuations[i]])
      tokens[row, :len(text) - 1], actions[row, :len(text) - 1] = text[:-1], text[1:]
    zero = np.zeros((B, bucket), np.float32)
    batch = types.Batch({"tokens_BS": tokens, "action_pos_BT": pos}, actions, zero, zero, zero,
                        zero, zero, zero[:, 0], np.zeros(B, np.int32))
    if role not in self._jitted:
      self._jitted[role] = jax.jit(self._roles.specs[role].policy.stats)
    batch = sharding.put_rows(batch, self._roles.mesh)
    stats = jax.device_get(self._jitted[role](self._roles.params(role), batch))
    for row, i in enumerate(indices):
      span = slice(len(prefixes[i]) - 1, len(prefixes[i]) + len(continuations[i]) - 1)
      out[i] = (stats.logp_BT[row, span], stats.entropy_BT[row, span])
