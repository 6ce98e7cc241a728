"""The loop of classic RL: chunks of a scan, vmapped over seeds, in the run folder of all runs.

A step of the run is one program: `chunk` steps of the agent (each acts and learns). Between two of
them are the log, checkpoints, evaluations, and what an agent does on the host (`redesign`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import config as config_lib
from rljax import rng
from rljax.classic import agent as agent_lib
from rljax.classic import env as env_lib
from rljax.train import distributed, runner
from rljax.train import scalars as scalars_lib
from rljax.types import Array

ConfigError = config_lib.ConfigError


@dataclasses.dataclass(frozen=True)
class Run:
  """A recipe as functions; states and keys have a leading axis of learners if there are several.

  Attributes:
    init: keys -> state. chunk: (state, keys) -> (state, metrics), its state donated.
    measures: name -> (state, keys) -> scalars, means over the learners.
  """

  config: Any
  env: env_lib.Env
  agent: agent_lib.Agent
  init: Callable
  chunk: Callable
  measures: Mapping[str, Callable]

  def keys(self, stream: str, *ids: int | str) -> Array:
    """A key per learner; a single one where there is one. The first is the same in either case."""
    c = self.config
    found = [rng.key(c.seed, stream, i, *ids) for i in range(c.seeds)]
    return jnp.stack(found) if c.seeds > 1 else found[0]


def build(config) -> Run:
  """Binds the leaves of a `recipes.classic` config.

  Raises:
    ConfigError: an unknown knob, or numbers that make no run.
  """
  for key in ("seeds", "chunk"):
    if config[key] < 1:
      raise ConfigError(f"config.{key}={config[key]}: at least 1")
  env = config_lib.bind(config.env, where="config.env")()
  agent = config_lib.bind(config.agent, where="config.agent")(env)
  over_seeds = jax.vmap if config.seeds > 1 else lambda f: f

  def chunk(state, key):
    def one(state, key):
      return jax.lax.scan(agent.step, state, jax.random.split(key, config.chunk))
    state, metrics = over_seeds(one)(state, key)
    for _ in range(1 + (config.seeds > 1)):
      metrics = agent_lib.folded(metrics)
    return state, metrics

  def measured(measure, state, key):
    found = over_seeds(functools.partial(measure, env, agent))(state, key)
    return {k: jnp.mean(x) for k, x in found.items()}

  measures = {name: jax.jit(functools.partial(measured, config_lib.bind(
      leaf, where=f"config.evals.{name}"))) for name, leaf in config.evals.items()}
  return Run(config, env, agent, jax.jit(over_seeds(agent.init)),
             jax.jit(chunk, donate_argnums=0), measures)


def train(config, workdir: str, *, devices=None, quiet: bool = False,
          hosts: distributed.Hosts = distributed.ALONE) -> dict[str, Any]:
  """Runs a `recipes.classic` config, as `rljax.train.loop.train` does others; the agent's state.

  Raises:
    ConfigError: several hosts, or whatever else the user can mend.
  """
  del devices  # it computes on the default one
  if hosts.count > 1:
    raise ConfigError("a run of classic RL is one process; start it on one host")
  return Loop(build(config), workdir, quiet=quiet).run()


class Loop(runner.Runner):
  """A running recipe: the agent's state, and the folder."""

  def __init__(self, run: Run, workdir: str, *, quiet: bool = False):
    super().__init__(run.config, workdir, quiet=quiet)
    self.r, self.state = run, None
    self.host |= {"frames": 0}

  def step(self, step: int) -> dict[str, float]:
    clock = scalars_lib.Clock()
    if self.r.agent.redesign is not None:
      self.state = self._redesigned(step)
      clock.lap("redesign")
    self.state, metrics = self.r.chunk(self.state, self.r.keys("chunk", step))
    scalars = {k: float(m.compute()) for k, m in jax.device_get(metrics).items()}
    clock.lap("update")
    frames = self.config.chunk * self.config.seeds * self.r.agent.frames
    self.host["frames"] += frames
    self.host["skipped"] += int(sum(v for k, v in scalars.items() if k.endswith("update/skipped")))
    return {**scalars, **clock.scalars(), "time/frames_per_second": frames / clock.total()}

  def evaluate(self, step: int) -> dict[str, float]:
    del step  # the same keys each time
    out = {}
    for name, measure in self.r.measures.items():
      found = jax.device_get(measure(self.state, self.r.keys("eval", name)))
      out.update({f"eval/{name}/{k}": float(v) for k, v in found.items()})
    return out

  def _redesigned(self, step):
    state = jax.device_get(self.state)
    if self.config.seeds == 1:
      return jax.device_put(self.r.agent.redesign(state, step))
    each = [self.r.agent.redesign(jax.tree.map(lambda x, i=i: x[i], state), step)
            for i in range(self.config.seeds)]
    return jax.device_put(jax.tree.map(lambda *xs: np.stack(xs), *each))

  # --- begin and end ---

  def init(self):
    self.state = self.r.init(self.r.keys("init"))

  def abstract(self):
    return jax.eval_shape(self.r.init, self.r.keys("init"))

  def arrays(self):
    return self.state

  def load(self, arrays):
    self.state = arrays

  def outcome(self):
    return self.state

  def summary(self, seconds):
    return {"frames": self.host["frames"],
            "frames_per_second": self.host["frames"] / max(seconds, 1e-9)}
