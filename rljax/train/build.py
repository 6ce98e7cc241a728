"""From a config to functions: the only code that knows what the keys of a recipe mean."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from rljax import config as config_lib
from rljax import sharding, types
from rljax.data import collate
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


@dataclasses.dataclass(frozen=True)
class Update:
  """One update of the recipe, ready to run. `order` and `slice` cut a batch into minibatches."""

  role: str
  speaker: str
  ref: str
  epochs: int
  minibatches: int
  shapes: collate.Shapes
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
  memories: dict[str, Any]
  select: Callable | None
  roles: roles_lib.Roles
  samplers: dict[str, roles_lib.Sampler]
  scorer: roles_lib.Scorer
  updates: dict[str, Update]


def build(config, *, devices=None) -> Run:
  """Binds every leaf, checks what belongs together, and makes the jitted functions.

  Raises:
    ConfigError: anything in the config that cannot work, named by its key.
  """
  mesh = sharding.mesh(devices)
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
  policies = _policies(config, tokenizer)
  optimizers, objectives = {}, {}
  for name, spec in config.updates.items():
    if spec.role not in config.roles:
      raise ConfigError(f"config.updates.{name}.role: there is no role {spec.role!r}")
    optimizers[_owner(config, spec.role)] = made(f"updates.{name}.optimizer")
    objectives[name] = leaf(f"updates.{name}.objective")
  roles = roles_lib.Roles(_roles(config, policies, optimizers, tokenizer, mesh, leaf), optimizers,
                          mesh, config.seed)
  samplers = {name: _sampler(config, name, policies[name], roles, tokenizer, mesh)
              for name in config.roles}
  updates = {name: _update(config, name, policies, optimizers, objectives, leaf, mesh)
             for name in config.updates}
  limits = config.limits
  scorer = roles_lib.Scorer(roles, rows=_round_up(config.sampling.slots, mesh.size),
                            buckets=(_context(limits) - 1,))
  eval_settings = {"temperature": config.eval.temperature, "greedy": config.eval.greedy}
  rollout, answer = _rollouts(config, leaf, made)
  eval_rollout = functools.partial(answer, group_size=config.eval.samples, settings=eval_settings)
  return Run(
      config=config, mesh=mesh, tokenizer=tokenizer, tasks=tasks, evals=evals,
      curriculum=made("curriculum"), rollout=rollout, eval_rollout=eval_rollout,
      rewards=rewards, reward_weights=dict(config.reward_weights),
      eval_verifier=leaf("eval.verifier"),
      memories={name: made(f"memories.{name}") for name in config.memories},
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


def _policies(config, tokenizer):
  """Role name -> policy at the sampling temperature."""
  out = {}
  for name, spec in config.roles.items():
    source = name if spec.model is not None else "policy"
    policy = _made(config, f"roles.{source}.model", tokenizer.vocab_size)
    out[name] = dataclasses.replace(policy, temperature=float(config.sampling.temperature))
  return out


def _roles(config, policies, optimizers, tokenizer, mesh, leaf):
  out = {}
  for name, spec in config.roles.items():
    trained = spec.train and not spec.shares and name in optimizers
    init = spec.init
    if init is None:
      init = policies[name].init
    elif not isinstance(init, str):
      bound = leaf(f"roles.{name}.init")
      init = lambda key, bound=bound, name=name: bound(
          Setup(config, policies[name], tokenizer, mesh, sharding.Layout(mesh), key))
    out[name] = roles_lib.Role(policies[name], trained, spec.shares, init, spec.follow, spec.decay)
  return out


def _sampler(config, name, policy, roles, tokenizer, mesh):
  s = config.sampling
  engine = engine_lib.Engine(
      policy, stop_ids=tokenizer.stop_ids, slots=_round_up(s.slots, mesh.size),
      prompt_buckets=_buckets(config), max_tokens=config.limits.response, mesh=mesh)
  defaults = {"temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p, "min_p": s.min_p,
              "max_tokens": config.limits.response}
  limits = {k: config.limits[k] for k in ("prompt", "response", "observation")}
  return roles_lib.Sampler(engine, lambda: roles.params(name), tokenizer, defaults, limits)


def _update(config, name, policies, optimizers, objectives, leaf, mesh):
  spec = config.updates[name]
  objective = objectives[name]
  advantage = leaf(f"updates.{name}.advantage") if spec.advantage else None
  asked = types.needs_of(advantage) if advantage else set()
  needs = types.needs_of(objective) | asked
  if "ref_logp" in needs and spec.ref not in config.roles:
    raise ConfigError(
        f"config.updates.{name} needs a reference model, and there is no role "
        f"{spec.ref!r}; add one with recipes.role(init='policy', train=False)")
  if "value" in needs:
    raise ConfigError(f"config.updates.{name} needs values, and no model here has a value head yet")
  has_ref = spec.ref in config.roles
  if "adv" in needs and advantage is None:
    raise ConfigError(
        f"config.updates.{name}.advantage: the objective reads advantages, found None")
  several = spec.epochs * spec.minibatches > 1
  logp_fn = policies[spec.role].stats
  prepare = step_lib.make_prepare(
      logp_fn, policies[spec.ref].stats if has_ref else None, advantage,
      old_logp=several or "old_logp" in asked)
  step = step_lib.make(logp_fn, objective, optimizers[_owner(config, spec.role)],
                       accum=spec.accum)
  group = config.rollout.get("group_size", 1)
  rows = _round_up(spec.rows or config.prompts * group, mesh.size * spec.accum * spec.minibatches)
  limits = config.limits
  shapes = collate.Shapes(rows, _context(limits) - 1, limits.response)
  cut = jax.jit(functools.partial(step_lib.minibatch, count=spec.minibatches)) if several else None
  return Update(
      role=spec.role, speaker=spec.speaker, ref=spec.ref if has_ref else "", epochs=spec.epochs,
      minibatches=spec.minibatches, shapes=shapes, discount=spec.discount,
      prepare=jax.jit(prepare), step=jax.jit(step, donate_argnums=0), slice=cut)


def _owner(config, name):
  """The role whose weights this one uses."""
  for _ in config.roles:
    if not config.roles[name].shares:
      return name
    if config.roles[name].shares not in config.roles:
      raise ConfigError(
          f"config.roles.{name}.shares: there is no role {config.roles[name].shares!r}")
    name = config.roles[name].shares
  raise ConfigError(f"config.roles.{name}.shares: roles share each other's weights in a circle")


def _round_up(n, multiple):
  return -(-n // multiple) * multiple


