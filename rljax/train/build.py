"""From a config to functions: the only code that knows what the keys of a recipe mean."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax

from rljax import config as config_lib
from rljax import sharding, types
from rljax.data import collate, packing
from rljax.sampling import engine as engine_lib
from rljax.train import roles as roles_lib
from rljax.train import step as step_lib

ConfigError = config_lib.ConfigError


@dataclasses.dataclass(frozen=True)
class Setup:
  """What an `init` leaf gets to build its parameters from."""

  config: Any
  policy: Any
  tokenizer: Any
  mesh: Any
  layout: sharding.Layout
  key: jax.Array
  role: str


@dataclasses.dataclass(frozen=True)
class Update:
  """One update of the recipe, ready to run. `order` and `slice` cut a batch into minibatches."""

  role: str
  speaker: str
  derive: Callable | None
  every: int
  ref: str
  value: str
  epochs: int
  minibatches: int
  unit: int                    # adjacent rows that minibatches keep together
  shapes: collate.Shapes
  pack: Callable | None
  discount: float
  prepare: Callable
  step: Callable
  slice: Callable | None


@dataclasses.dataclass(frozen=True)
class Run:
  """A recipe as functions and data."""

  config: Any
  mesh: Any
  tokenizer: Any
  tasks: Any
  evals: dict[str, Any]
  curriculum: Any
  rollout: Callable
  eval_rollout: Callable
  rewards: dict[str, Callable]
  reward_weights: dict[str, float]
  eval_verifier: Callable
  measure: Callable
  memories: dict[str, Any]
  select: Callable | None
  roles: roles_lib.Roles
  samplers: dict[str, roles_lib.Sampler]
  scorer: roles_lib.Scorer
  updates: dict[str, Update]

  def problems(self, tasks, limit: int = 0) -> tuple[list, list]:
    """The first `limit` tasks (0 = all), and those of them whose prompts fit."""
    some = [tasks[i] for i in range(min(limit or len(tasks), len(tasks)))]
    most = self.config.limits.prompt
    return some, [t for t in some if len(self.tokenizer.render(t.prompt)) <= most]


def build(config, *, devices=None) -> Run:
  """Binds every leaf, checks what belongs together, and makes the jitted functions.

  Raises:
    ConfigError: anything in the config that cannot work, named by its key.
  """
  if "loop" in config:
    raise ConfigError(f"this recipe has a loop of its own ({config.loop.fn}): rljax-train, "
                      "rljax-reproduce and rljax-report take it, this command does not")
  layout, sampler_layout, speakers = _layouts(config, devices)
  mesh = layout.mesh
  leaf = functools.partial(_leaf, config)
  made = functools.partial(_made, config)
  tokenizer = made("tokenizer")
  tasks = made("tasks")
  if not len(tasks):
    raise ConfigError("config.tasks: the task set is empty")
  evals = {name: made(f"evals.{name}") for name in config.evals}
  rewards = {name: leaf(f"rewards.{name}") for name in config.rewards}
  for name in config.reward_weights:
    if name not in rewards:
      raise ConfigError(f"config.reward_weights.{name}: there is no such reward "
                        f"(there is: {', '.join(rewards) or 'none'})")
  if config.limits.on_long_prompt not in ("error", "skip"):
    raise ConfigError(f"config.limits.on_long_prompt: 'error' or 'skip', "
                      f"found {config.limits.on_long_prompt!r}")
  policies = _policies(config, tokenizer, layout)
  optimizers, objectives = {}, {}
  for name, spec in config.updates.items():
    if spec.role not in config.roles:
      raise ConfigError(f"config.updates.{name}.role: there is no role {spec.role!r}")
    optimizers[_owner(config, spec.role)] = made(f"updates.{name}.optimizer")
    objectives[name] = leaf(f"updates.{name}.objective")
  roles = roles_lib.Roles(_roles(config, policies, optimizers, tokenizer, leaf), optimizers,
                          mesh, config.seed, sampler_layout, speakers, bool(config.lag))
  _check_lag(config, roles, objectives)
  slots = -(-config.sampling.slots * roles.own.size // mesh.size)  # of this host
  limits = config.limits
  # The larger one is for what a reward puts behind a whole response, such as a reference answer.
  scorer = roles_lib.Scorer(roles, rows=_round_up(slots, roles.own.size),
                            buckets=(_context(limits) - 1, 2 * (_context(limits) - 1)))
  samplers = {name: _sampler(config, name, policies[name], roles, tokenizer, slots, scorer)
              for name in config.roles}
  updates = {name: _update(config, name, policies, optimizers, objectives, leaf, mesh, roles)
             for name in config.updates}
  eval_settings = {"temperature": config.eval.temperature, "greedy": config.eval.greedy}
  rollout, answer = _rollouts(config, leaf, made)
  eval_rollout = functools.partial(answer, group_size=config.eval.samples, settings=eval_settings)
  return Run(
      config=config, mesh=mesh, tokenizer=tokenizer, tasks=tasks, evals=evals,
      curriculum=leaf("curriculum")(tasks), rollout=rollout, eval_rollout=eval_rollout,
      rewards=rewards, reward_weights=dict(config.reward_weights),
      eval_verifier=leaf("eval.verifier"), measure=leaf("eval.measure"),
      memories={name: made(f"memories.{name}") for name, m in config.memories.items() if m},
      select=leaf("select") if config.select else None,
      roles=roles, samplers=samplers, scorer=scorer, updates=updates)


def _leaf(config, dotted):
  node = config
  for part in dotted.split("."):
    node = node[part]
  if node is None:
    raise ConfigError(f"config.{dotted}: needs a fn('module:function', ...) leaf, found None")
  return config_lib.bind(node, where=f"config.{dotted}")


def _made(config, dotted, *args):
  """What the leaf's function returns; its ValueError names the key."""
  try:
    return _leaf(config, dotted)(*args)
  except ValueError as e:
    raise ConfigError(f"config.{dotted}: {e}") from None


def _rollouts(config, leaf, made):
  """The rollouts of training and of evaluation; equal environments are made once."""
  environments = {}

  def one(dotted, node):
    rollout = leaf(dotted)
    if node.get("env") is None:
      return rollout
    key = config_lib.digest(node.env)
    if key not in environments:
      environments[key] = made(f"{dotted}.env")
    return functools.partial(rollout, env=environments[key])

  answer = (one("eval.rollout", config.eval.rollout) if config.eval.rollout else
            config_lib.resolve("rljax.rollouts.single_turn:single_turn"))
  return one("rollout", config.rollout), answer


def _context(limits):
  """Tokens of an episode: prompt, everything the policy says, everything it is told."""
  return limits.prompt + limits.response + limits.observation


def _buckets(config):
  """Prompt lengths to compile for: of every turn, where there are several."""
  if config.sampling.prompt_buckets:
    return tuple(config.sampling.prompt_buckets)
  limits = config.limits
  sizes = [limits.prompt]
  while limits.observation and sizes[-1] < _context(limits) - 1:
    sizes.append(min(2 * sizes[-1], _context(limits) - 1))
  return tuple(sizes)


def _layouts(config, devices):
  """(of the trainer, of the sampler or None where it reads the trainer's arrays, the mesh of this
  host's devices that only sample or None)."""
  spec = config.layout
  try:
    train, sample = sharding.divided(devices, spec.sampler)
    mesh = sharding.mesh(train, tensor=spec.tensor)
    sharding.own(mesh)
    return (sharding.Layout(mesh, spec.train),
            sharding.Layout(mesh, "sampler") if spec.train != "single" else None,
            sharding.mesh(sample, tensor=spec.tensor) if sample else None)
  except ValueError as e:
    raise ConfigError(f"config.layout: {e}") from None


def _check_lag(config, roles, objectives):
  if config.lag not in (0, 1):
    raise ConfigError(f"config.lag={config.lag!r}: 0 or 1")
  if config.lag and roles.speakers is roles.own and roles.own.size > 1:
    raise ConfigError("config.lag=1 on several devices: set config.layout.sampler, how many of "
                      "them only sample (programs of two threads would wait for each other)")
  for name, objective in objectives.items() if config.lag else ():
    if objective.keywords.get("correction") is None and "correction" in inspect.signature(
        objective.func).parameters:
      raise ConfigError(
          f"config.lag=1: samples come from older weights; config.updates.{name}.objective needs "
          f"a correction, such as fn('rljax.nums:truncated_weight')")


def _policies(config, tokenizer, layout):
  """Role name -> policy at the sampling temperature."""
  out = {}
  for name, spec in config.roles.items():
    source = name if spec.model is not None else "policy"
    if source not in config.roles:
      raise ConfigError(f"config.roles.{name}.model: there is no role 'policy' to take it from")
    policy = _made(config, f"roles.{source}.model", tokenizer.vocab_size)
    policy = dataclasses.replace(policy, temperature=float(config.sampling.temperature),
                                 layout=layout)
    if spec.head is not None:
      policy = dataclasses.replace(policy, head=_made(config, f"roles.{name}.head"))
    if spec.lora is not None:
      if not spec.shares or spec.init is not None:
        raise ConfigError(f"config.roles.{name}.lora: adapters need `shares`, the role whose "
                          f"weights they adapt, and start by themselves (init=None)")
      adapted = dataclasses.replace(policy.cfg, lora=_made(config, f"roles.{name}.lora"))
      policy = dataclasses.replace(policy, cfg=adapted)
    if policy.patches != tokenizer.patches:
      raise ConfigError(f"config.roles.{source}.model reads {policy.patches} patches per image, "
                        f"config.tokenizer writes {tokenizer.patches} (0: text alone)")
    try:
      policy.shapes()
    except ValueError as e:
      raise ConfigError(f"config.roles.{name}: {e}") from None
    out[name] = policy
  return out


def _roles(config, policies, optimizers, tokenizer, leaf):
  out = {}
  for name, spec in config.roles.items():
    trained = spec.train and _owner(config, name) == name and name in optimizers
    init = spec.init
    if init is None:
      init = policies[name].init
    elif not isinstance(init, str):
      bound = leaf(f"roles.{name}.init")
      init = lambda key, bound=bound, policy=policies[name], name=name: bound(
          Setup(config, policy, tokenizer, policy.layout.mesh, policy.layout, key, name))
    if spec.every < 1:
      raise ConfigError(f"config.roles.{name}.every: at least 1, found {spec.every}")
    out[name] = roles_lib.Role(policies[name], trained, spec.shares, init, spec.follow, spec.decay,
                               spec.every)
  return out


def engine(config, policy, tokenizer, mesh, slots: int) -> engine_lib.Engine:
  """A sampling engine with the limits of a config."""
  return engine_lib.Engine(
      policy, stop_ids=tokenizer.stop_ids, slots=_round_up(slots, mesh.size),
      prompt_buckets=_buckets(config), max_tokens=config.limits.response,
      cache_bits=config.sampling.cache_bits, mesh=mesh)


def _sampler(config, name, policy, roles, tokenizer, slots, scorer):
  s = config.sampling
  defaults = {"temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p, "min_p": s.min_p,
              "max_tokens": config.limits.response}
  limits = {k: config.limits[k] for k in ("prompt", "response", "observation")}
  return roles_lib.Sampler(engine(config, policy, tokenizer, roles.speakers, slots),
                           lambda: roles.sampler_params(name), tokenizer, defaults, limits,
                           functools.partial(scorer.value, name))


def _update(config, name, policies, optimizers, objectives, leaf, mesh, roles):
  spec = config.updates[name]
  objective = objectives[name]
  advantage = leaf(f"updates.{name}.advantage") if spec.advantage else None
  asked = types.needs_of(advantage) if advantage else set()
  needs = types.needs_of(objective) | asked
  if "ref_logp" in needs and spec.ref not in config.roles:
    raise ConfigError(
        f"config.updates.{name} needs a reference model, and there is no role "
        f"{spec.ref!r}; add one with recipes.role(init='policy', train=False)")
  critic = _critic(config, name, policies) if "value" in needs else ""
  own_value = bool(critic) and critic == spec.role
  has_ref = spec.ref in config.roles
  if "scores" in needs and policies[spec.role].head is None:
    raise ConfigError(f"config.updates.{name} trains scores, and roles.{spec.role} has no head; "
                      f"give it head=fn('rljax.models.heads:head')")
  if "adv" in needs and advantage is None:
    raise ConfigError(
        f"config.updates.{name}.advantage: the objective reads advantages, found None")
  several = spec.epochs * spec.minibatches > 1
  logp_fn = policies[spec.role].stats
  prepare = step_lib.make_prepare(
      logp_fn, policies[spec.ref].stats if has_ref else None, advantage,
      old_logp=several or "old_logp" in asked, own_value=own_value, accum=spec.accum,
      value_fn=policies[critic].stats if critic and not own_value else None)
  owner = _owner(config, spec.role)
  step = step_lib.make(
      logp_fn, objective, optimizers[owner], accum=spec.accum,
      router=spec.router if policies[spec.role].cfg.experts else 0.0,
      monitors=types.needs_of(objective) not in ({"value"}, {"scores"}))
  group = config.rollout.get("group_size", 1)
  unit = types.unit_of(objective)
  rows = _round_up(spec.rows or config.prompts * group,
                   math.lcm(mesh.size, unit) * spec.accum * spec.minibatches)
  limits = config.limits
  shapes = collate.Shapes(rows, _context(limits) - 1, limits.response, policies[spec.role].media)
  cut = jax.jit(functools.partial(step_lib.minibatch, count=spec.minibatches)) if several else None
  return Update(
      role=spec.role, speaker=spec.speaker, ref=spec.ref if has_ref else "",
      derive=leaf(f"updates.{name}.derive") if spec.derive else None, every=spec.every,
      value="" if own_value else critic, epochs=spec.epochs,
      minibatches=spec.minibatches, unit=unit, shapes=shapes, discount=spec.discount,
      pack=_packing(config, name, rows, mesh),
      prepare=jax.jit(prepare), slice=cut,
      step=jax.jit(step_lib.packed_metrics(step), donate_argnums=0,
                   out_shardings=(roles.shardings(owner), None)))


def _packing(config, name, rows, mesh):
  """How the episodes of an update share rows of the model; None = one row each."""
  spec = config.updates[name]
  if not spec.pack:
    return None
  if spec.pack_length and spec.pack_length < _context(config.limits) - 1:
    raise ConfigError(f"config.updates.{name}.pack_length={spec.pack_length} is less than the "
                      f"{_context(config.limits) - 1} tokens of an episode")
  if spec.minibatches > 1:
    raise ConfigError(f"config.updates.{name}.pack: packed rows are not cut into minibatches; use "
                      f"accum for smaller steps of memory")
  parts = mesh.shape["data"] * spec.accum
  packed = _round_up(spec.pack, parts)
  if packed >= rows:
    raise ConfigError(f"config.updates.{name}.pack={spec.pack} is not less than its {rows} rows")
  return functools.partial(packing.pack, rows=packed, length=spec.pack_length, parts=parts)


def _critic(config, name, policies):
  """The role that gives an update its values."""
  role = config.updates[name].value or config.updates[name].role
  if role not in policies:
    raise ConfigError(f"config.updates.{name}.value: there is no role {role!r}")
  head = policies[role].head
  if head is None or head.outputs != 1:
    raise ConfigError(
        f"config.updates.{name} needs values, and roles.{role} has no head with one output; give "
        f"it head=fn('rljax.models.heads:head'), or name a role that has one as `value`")
  return role


def _owner(config, name):
  """The role whose weights an update of this one moves: its own, or those of whom it shares."""
  for _ in config.roles:
    if not config.roles[name].shares or config.roles[name].lora is not None:
      return name
    if config.roles[name].shares not in config.roles:
      raise ConfigError(
          f"config.roles.{name}.shares: there is no role {config.roles[name].shares!r}")
    name = config.roles[name].shares
  raise ConfigError(f"config.roles.{name}.shares: roles share each other's weights in a circle")


def _round_up(n, multiple):
  return -(-n // multiple) * multiple


