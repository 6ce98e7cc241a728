"""Roles: named models, and who owns, shares, follows or freezes which weights."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rljax import config as config_lib
from rljax import optim, rng, sharding, types
from rljax.models import lora
from rljax.sampling import engine as engine_lib
from rljax.train import step as step_lib
from rljax.types import PyTree, TrainState


@dataclasses.dataclass(frozen=True)
class Role:
  """One named model.

  Attributes:
    policy: its pure functions.
    train: it has an optimizer state of its own.
    shares: name of the role whose weights it uses; "" = its own. A policy with adapters owns those
      (and its head), over the weights of this role.
    init: (key) -> params, or the name of the role to copy at the start.
    follow, decay, every: after the updates of every so many-th step, weights <- decay * weights +
      (1 - decay) * those of `follow`.
  """

  policy: object
  train: bool
  shares: str
  init: Callable | str
  follow: str
  decay: float
  every: int = 1


class Roles:
  """All models of a run. `states[name]` is a TrainState for a trained role, params if frozen; of a
  role with adapters it holds what is its own only."""

  def __init__(self, specs: dict[str, Role], optimizers: dict[str, optim.Optimizer], mesh,
               seed: int, sampler_layout: sharding.Layout | None = None, speakers=None,
               lag: bool = False):
    self.specs, self.optimizers, self.mesh, self.seed = specs, optimizers, mesh, seed
    self.sampler_layout = sampler_layout  # None: the sampler reads the trained weights themselves
    self.own = sharding.own(mesh)  # the devices on which this host scores
    self.speakers = speakers or self.own  # and those on which it samples
    # With lag, samplers read the weights that were held last; `lagging` is off while evaluating.
    self.behind: dict[str, PyTree] | None = {} if lag else None
    self.lagging = lag
    self._moved: dict[str, tuple[list, PyTree]] = {}
    self._movers: dict[str, Callable] = {}
    self.states: dict[str, TrainState | PyTree] = {}
    for name, spec in specs.items():
      for other in filter(None, (spec.shares, spec.follow,
                                 isinstance(spec.init, str) and spec.init)):
        if other not in specs:
          raise config_lib.ConfigError(f"roles.{name} refers to {other!r}, which is not a role")
    self._ema = jax.jit(lambda a, b, decay: jax.tree.map(
        lambda x, y: (decay * x + (1 - decay) * y).astype(x.dtype), a, b),
        donate_argnums=0, static_argnums=2)
    self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))

  def owner(self, name: str) -> str:
    """The role whose state an update of this one moves."""
    while self.specs[name].shares and not self._adapts(name):
      name = self.specs[name].shares
    return name

  def base(self, name: str, behind: bool = False) -> PyTree | None:
    """The weights under the adapters of an owner; None if it has no adapters."""
    return self.params(self.specs[name].shares, behind) if self._adapts(name) else None

  def _adapts(self, name):
    return self.specs[name].policy.cfg.lora is not None

  def _own(self, name) -> set[str] | None:
    """Paths of the parameters an owner holds; None = all of its policy's."""
    if not self._adapts(name):
      return None
    under = self.specs[self.specs[name].shares].policy.specs()
    return set(self.specs[name].policy.specs()) - set(under)

  def init(self) -> None:
    """Creates all weights: own ones first, then copies of roles, in the order of need."""
    waiting = [n for n in self.specs if self.owner(n) == n]
    while waiting:
      ready = [n for n in waiting
               if not isinstance(self.specs[n].init, str) or self.specs[n].init in self.states]
      if not ready:
        raise config_lib.ConfigError(f"roles {', '.join(waiting)} start as copies of each other")
      for name in ready:
        self.states[name] = self._create(name)
        waiting.remove(name)
    if self.behind is not None:
      self.hold()

  def _create(self, name):
    spec, key = self.specs[name], rng.key(self.seed, "init", name)
    if self._adapts(name):
      params = spec.policy.init(key, self._own(name))
    else:
      source = self.params(spec.init) if isinstance(spec.init, str) else spec.init(key)
      try:
        params = spec.policy.adopt(source, key)
        if isinstance(spec.init, str):
          params = jax.tree.map(jnp.copy, params)
      except config_lib.ConfigError as e:
        raise config_lib.ConfigError(f"config.roles.{name}.init: {e}") from None
    params = sharding.put(
        params, jax.tree.map(lambda x: x.sharding, spec.policy.shapes(self._own(name))))
    if not spec.train:
      return params
    make = jax.jit(lambda p: step_lib.init_state(p, self.optimizers[name]),
                   out_shardings=self.shardings(name))
    return make(params)

  def abstract(self) -> dict[str, PyTree]:
    """`saved` as shapes with shardings, without creating a weight: what a restore needs."""
    states = {name: self._abstract(name) for name in self.specs if self.owner(name) == name}
    behind = {n for n in states if self.behind is not None and self.specs[n].train}
    return {**states, **{_BEHIND + n: _params(states[n]) for n in sorted(behind)}}

  def saved(self) -> dict[str, PyTree]:
    """All that a checkpoint holds: the states, and the weights that samplers still read."""
    return {**self.states, **{_BEHIND + n: x for n, x in (self.behind or {}).items()}}

  def restore(self, saved: dict[str, PyTree]) -> None:
    self.states = {n: x for n, x in saved.items() if not n.startswith(_BEHIND)}
    if self.behind is not None:
      self.behind = {n.removeprefix(_BEHIND): x for n, x in saved.items() if n not in self.states}

  def hold(self) -> None:
    """From now on samplers read the weights as they are at this moment."""
    self.behind = {n: self._copy(_params(x)) for n, x in self.states.items()
                   if self.specs[n].train}

  def _abstract(self, name):
    spec = self.specs[name]
    params = spec.policy.shapes(self._own(name))
    if not spec.train:
      return params
    try:
      state = jax.eval_shape(lambda p: step_lib.init_state(p, self.optimizers[name]), params)
    except ValueError as e:
      raise config_lib.ConfigError(f"the optimizer of role {name}: {e}") from None
    places = spec.policy.layout.follow(state, params)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, places)

  def shardings(self, name: str) -> PyTree:
    """Where each array of an owner's state lives."""
    return jax.tree.map(lambda x: x.sharding, self._abstract(name))

  def params(self, name: str, behind: bool = False) -> PyTree:
    """All weights that a role's policy reads, or those held last; adapters joined to their base."""
    owner = self.owner(name)
    own = self.behind[owner] if behind and owner in self.behind else _params(self.states[owner])
    return lora.join(self.base(owner, behind), own) if self._adapts(owner) else own

  def sampler_params(self, name: str) -> PyTree:
    """What a sampler reads, on its devices, in its layout and dtype; moved there once per change
    of the weights."""
    return self._on(self.speakers, name, self.params(name, self.lagging))

  def _on(self, mesh, name, params):
    """Weights of a role on devices of this host."""
    layout = self.sampler_layout
    if layout is None and mesh is self.mesh:
      return params
    leaves, place = jax.tree.leaves(params), (name, mesh is self.speakers)
    kept, moved = self._moved.get(place, ((), None))
    if len(kept) != len(leaves) or any(a is not b for a, b in zip(kept, leaves)):
      moved = sharding.near(self._mover(name)(params) if layout else params, self.own)
      if mesh is not self.own:
        moved = jax.tree.map(lambda x: jax.device_put(
            x, jax.sharding.NamedSharding(mesh, x.sharding.spec)), moved)
      self._moved[place] = leaves, moved
    return moved

  def _mover(self, name):
    if name not in self._movers:
      policy = dataclasses.replace(self.specs[name].policy, layout=self.sampler_layout)
      places = jax.tree.map(lambda x: x.sharding, policy.shapes())
      self._movers[name] = jax.jit(policy.for_sampling, out_shardings=places)
    return self._movers[name]

  def publish(self) -> None:
    """Moves what may be asked for until the next update to where it is read.

    All of several hosts take part in a move, so it cannot wait for the moment when one of them
    asks; nor may a sampler beside the trainer move anything.
    """
    for name in self.specs if self.own is not self.mesh or self.behind is not None else ():
      self.sampler_params(name)
      self.near(name)

  def near(self, name: str) -> tuple[object, PyTree]:
    """(policy, its weights) for calls that this host makes without the others."""
    policy = self.specs[name].policy
    if self.own is self.mesh:
      return policy, self.params(name)
    rules = self.sampler_layout.rules if self.sampler_layout else "single"
    layout = sharding.Layout(self.own, rules)
    return dataclasses.replace(policy, layout=layout), self._on(self.own, name, self.params(name))

  def follow(self, updated: str, step: int) -> None:
    """Moves every role that follows the updated one and is due after this step."""
    for name, spec in self.specs.items():
      due = spec.follow and (step + 1) % spec.every == 0
      if due and self.owner(spec.follow) == self.owner(updated):
        self.states[name] = self._ema(
            self.states[name], _params(self.states[self.owner(spec.follow)]), spec.decay)


_BEHIND = "behind "  # of names in a checkpoint


def _params(state):
  return state.params if isinstance(state, TrainState) else state


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A role that can speak: an engine, its weights, and the run's sampling settings.

  `limits` holds the tokens of an episode: "prompt", "response", "observation". `value` is
  `Scorer.value` of the role: what a rollout that searches may ask.

  Rollouts call `generate(prompts, seeds, ...)`; the key of the phase (step or evaluation) is bound.
  """

  engine: engine_lib.Engine
  params: Callable[[], PyTree]
  tokenizer: object
  defaults: dict
  limits: dict
  value: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None

  def generate(self, prompts: Sequence[np.ndarray], seeds: Sequence[tuple[int, int]], key, *,
               handles: Sequence[engine_lib.Handle | None] | None = None, keep: bool = False,
               media: Sequence[tuple] | None = None, **settings) -> list[engine_lib.Completion]:
    """One completion per prompt.

    Args:
      prompts: int32 token ids. seeds: (task number, sample number) per prompt.
      key: jax key of this phase.
      handles: of earlier completions, one per prompt or None: what a prompt has in common with the
        beginning of that conversation is not read again.
      keep: completions come with handles, to be given to `release` when they are not used.
      media: what the patch tokens of each prompt stand for (`Task.media`); None = there are none.
      **settings: override the run's (temperature, top_k, top_p, min_p, max_tokens, greedy);
        max_tokens may be one number per prompt.

    Raises:
      ConfigError: media that the model cannot read, or that a prompt does not name.
    """
    settings = {**self.defaults, **settings}
    most = np.broadcast_to(settings.pop("max_tokens"), len(prompts)).tolist()
    requests = []
    shown = self._tables(prompts, media or [()] * len(prompts))
    for p, s, m, h, x in zip(prompts, seeds, most, handles or [None] * len(prompts), shown,
                             strict=True):
      rest = h.trim(p) if h else p
      if h and not h.cached:
        h = self.engine.release(h)
      requests.append(engine_lib.Request(
          rest, s, max_tokens=m, parent=h, keep=keep, media=x, **settings))
    return self.engine.generate(self.params(), requests, key)

  def _tables(self, prompts, media) -> list[np.ndarray | None]:
    """The media of each prompt as an array, made once for all that share them."""
    if not any(media) and np.max(np.concatenate([*prompts, [0]])) < types.FIRST_PATCH:
      return [None] * len(prompts)
    made, out = {}, []
    for p, m in zip(prompts, media, strict=True):
      if not m and (not len(p) or np.max(p) < types.FIRST_PATCH):
        out.append(None)
        continue
      name = (id(m), np.asarray(p).tobytes())
      if name not in made:
        made[name] = self.engine.policy.table(m, p)
      out.append(made[name])
    return out

  def fork(self, handle: engine_lib.Handle) -> engine_lib.Handle:
    """Another handle of the same conversation: each serves one more request."""
    return self.engine.fork(handle)

  def release(self, handle: engine_lib.Handle) -> None:
    self.engine.release(handle)


class Scorer:
  """What roles say about given tokens, batched and bucketed: `ctx.score`, `ctx.value`, ..."""

  def __init__(self, roles: Roles, *, rows: int, buckets: Sequence[int]):
    self._roles, self._rows, self._buckets = roles, rows, sorted(buckets)
    self._jitted: dict[str, Callable] = {}

  def score(self, role: str, prefixes: Sequence[np.ndarray], continuations: Sequence[np.ndarray],
            media: Sequence[tuple] | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per pair, (logp, entropy) of each continuation token given what precedes it, float32.

    Args:
      media: what the patch tokens of each pair stand for; None = there are none.

    Raises:
      ValueError: an empty prefix, or a pair longer than the largest bucket.
      ConfigError: media that a pair does not name, or names and has not.
    """
    return self._pairs(role, prefixes, continuations, lambda s: (s.logp_BT, s.entropy_BT),
                       media=media)

  def uniform_kl(self, role: str, prefixes: Sequence[np.ndarray],
                 continuations: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Per pair, KL(U || p) at each continuation token, nats; raises as `score`."""
    found = self._pairs(role, prefixes, continuations,
                        lambda s: (s.extras["uniform_kl_BT"],), extras=("uniform_kl_BT",))
    return [kl for kl, in found]

  def value(self, role: str, texts: Sequence[np.ndarray]) -> np.ndarray:
    """What the role's scalar head says at the last token of each text; NaN if it is too long.

    Returns:
      float64 [n].

    Raises:
      ConfigError: the run has no such role, or it has no scalar head.
    """
    spec = self._roles.specs.get(role)
    if spec is None or spec.policy.head is None or spec.policy.head.outputs != 1:
      raise config_lib.ConfigError(f"ctx.value: the run has no role {role!r} with a scalar head")
    fits = [i for i, t in enumerate(texts) if 0 < len(t) <= self._buckets[-1]]
    found = self._read(role, [texts[i] for i in fits], lambda s: s.value_BT)
    out = np.full(len(texts), np.nan)
    out[fits] = [row[len(texts[i]) - 1] for i, row in zip(fits, found)]
    return out

  def _pairs(self, role, prefixes, continuations, pick, extras=(), media=None):
    texts = []
    for i, (p, c) in enumerate(zip(prefixes, continuations, strict=True)):
      if not len(p) or len(p) + len(c) - 1 > self._buckets[-1]:
        raise ValueError(f"score: pair {i} has {len(p)} + {len(c)} tokens; "
                         f"1 to {self._buckets[-1] + 1} fit, with at least one before")
      texts.append(np.concatenate([p, c]))
    found = self._read(role, [t[:-1] for t in texts], pick, [t[1:] for t in texts], extras, media)
    return [tuple(x[len(p) - 1:len(p) + len(c) - 1] for x in row)
            for row, p, c in zip(found, prefixes, continuations)]

  def _read(self, role, texts, pick, actions=None, extras=(), media=None) -> list:
    """`pick` of the role's stats for each text, whose `actions` are the tokens that follow."""
    out: list = [None] * len(texts)
    by_bucket: dict[int, list[int]] = {}
    for i, t in enumerate(texts):
      by_bucket.setdefault(next(b for b in self._buckets if b >= len(t)), []).append(i)
    for bucket, indices in by_bucket.items():
      for at in range(0, len(indices), self._rows):
        some = indices[at:at + self._rows]
        found = pick(self._wave(role, bucket, [texts[i] for i in some],
                                actions and [actions[i] for i in some], extras,
                                [media[i] if media else () for i in some]))
        for row, i in enumerate(some):
          out[i] = jax.tree.map(lambda x, row=row: x[row], found)
    return out

  def _wave(self, role, bucket, texts, actions, extras, media):
    B = self._rows
    policy, params = self._roles.near(role)
    tokens_BS, actions_BT = np.zeros((B, bucket), np.int32), np.zeros((B, bucket), np.int32)
    for rows, given in ((tokens_BS, texts), (actions_BT, actions or ())):
      for row, t in zip(rows, given):
        row[:len(t)] = t
    pos = np.tile(np.arange(bucket, dtype=np.int32), (B, 1))
    zero = np.zeros((B, bucket), np.float32)
    inputs = {"tokens_BS": tokens_BS, "action_pos_BT": pos, **policy.media(media, texts, B)}
    batch = types.Batch(inputs, actions_BT, zero, zero, zero, zero, zero, zero[:, 0],
                        np.zeros(B, np.int32), extras={name: zero for name in extras})
    if role not in self._jitted:
      self._jitted[role] = jax.jit(policy.stats)
    batch = sharding.put_rows(batch, self._roles.own)
    return jax.device_get(self._jitted[role](params, batch))
