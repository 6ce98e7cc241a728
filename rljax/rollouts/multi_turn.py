"""A policy in an environment: tools, search, games for one. Many episodes advance together."""

import concurrent.futures
import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from rljax import config, rng, types
from rljax.envs import base
from rljax.rollouts import dialogue

log = logging.getLogger(__name__)


def multi_turn(samplers: Mapping, tasks: Sequence[types.Task], key, *, env: base.Env,
               group_size: int = 8, role: str = "policy", max_turns: int = 4, turn_tokens: int = 0,
               observation_tokens: int = 0, message: bool = False, step_rewards: bool = False,
               workers: int = 8, settings: dict | None = None) -> list[types.Episode]:
  """`group_size` episodes per task, group-major; one sampler call per turn for all that still run.

  A turn ends with the first of the environment's stop strings, the end token or its token limit;
  what was sampled beyond a stop string is dropped. Observations are turns of role "tool": read by
  the policy, never trained on, cut by tokens. An episode ends when the environment says so
  (status STOP), or when its turns or its tokens are used up (LENGTH); an environment that raises
  ends its own episode only (ERROR, which is never trained on).

  `Episode.info` holds what the environment reports, `turns`, and `return`: the sum of its rewards.

  Args:
    env: leaf of an `rljax.envs.base.Env`; made once per run.
    role: who speaks.
    max_turns: of the policy; after the last one no observation is read.
    turn_tokens: most tokens of one turn; 0 = what is left of limits.response.
    observation_tokens: most tokens of one observation; 0 = what is left of limits.observation.
    message: observations come as chat messages of the user's, not inside the policy's own message.
    step_rewards: pay the environment's rewards at the turn that earned them (then no reward
      function should count them again); otherwise they are in `return` alone.
    workers: threads that step environments; results do not depend on it.
    settings: overrides of the run's sampling settings.

  Raises:
    ConfigError: several turns and no room for observations.
  """
  sampler = samplers[role]
  if max_turns > 1 and not sampler.limits["observation"]:
    raise config.ConfigError(
        f"multi_turn: {max_turns} turns need room for what the environment says between them; "
        f"set limits.observation")
  pairs = [(i, g) for i in range(len(tasks)) for g in range(group_size)]
  dialogues = [dialogue.Dialogue(sampler, tasks[i], sample=g, group=i, role=role)
               for i, g in pairs]
  with contextlib.ExitStack() as stack:
    run = map
    if workers > 1:
      run = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers)).map
    runs = [_Run(d, env, step_rewards, message) for d in dialogues]
    seeds = rng.integers(rng.fold(key, "environment"), [d.seed for d in dialogues])
    list(run(_Run.reset, runs, seeds))
    for turn in range(max_turns):
      live = [r for r in runs if not r.d.status]
      texts = dialogue.advance([r.d for r in live], rng.fold(key, turn), stop=env.stop,
                               turn_tokens=turn_tokens, settings=settings)
      answers = list(run(_Run.step, live, texts))
      for r, observation in zip(live, answers):
        if not r.d.status and turn + 1 < max_turns:
          r.d.read(observation, limit=observation_tokens, message=message)
    list(run(_Run.close, runs))
  return [r.d.episode(**{"return": r.total}) for r in runs]


def demonstrations(samplers: Mapping, tasks: Sequence[types.Task], key, *, env: base.Env,
                   role: str = "policy", observation_tokens: int = 0, message: bool = False,
                   workers: int = 8) -> list[types.Episode]:
  """One episode per task in which the policy says `task.info["turns"]`, for supervised training.

  The environment answers as it does in `multi_turn`; nothing is sampled. A turn that does not end
  with a stop string has its end token. The first `task.info["given"]` tokens of the first turn
  (none where it is missing) are read instead of said: a decision that is not to be learned.

  Raises:
    ConfigError: a task without turns, or whose turns are over before the environment is done.
  """
  shown = dialogue.Shown(samplers[role], tasks, env.stop)
  most = max(map(len, shown.turns.values()), default=1)
  episodes = multi_turn({role: shown}, tasks, key, env=env, group_size=1, role=role,
                        max_turns=most + 1, observation_tokens=observation_tokens, message=message,
                        workers=workers)
  return [_given(e, e.task.info.get("given", 0)) for e in episodes]


def _given(episode, count):
  """The first tokens that the policy says belong to the prompt."""
  if not count:
    return episode
  prompt, said = episode.turns[:2]
  read = dataclasses.replace(prompt, tokens=np.concatenate([prompt.tokens, said.tokens[:count]]))
  return dataclasses.replace(episode, turns=(
      read, dataclasses.replace(said, tokens=said.tokens[count:]), *episode.turns[2:]))


class _Run:
  """One episode: its dialogue and the state of its environment. Faults end it and nothing else."""

  def __init__(self, d, env, step_rewards, message):
    self.d, self.env, self.state, self.total = d, env, None, 0.0
    self._pay, self._message = step_rewards, message

  def _guarded(self, function, *args):
    try:
      return function(*args)
    except config.ConfigError:
      raise
    except Exception as e:
      log.warning("task %s: the environment raised %s: %s", self.d.task.id, type(e).__name__, e)
      self.d.end(types.ERROR, error=f"{type(e).__name__}: {e}"[:500])

  def reset(self, seed):
    out = self._guarded(self.env.reset, self.d.task, seed)
    if out is not None:
      self.state, observation = out
      self.d.read(observation, message=self._message)

  def step(self, text):
    """The next observation; "" when the episode has ended."""
    out = self._guarded(self.env.step, self.state, text)
    if out is None:
      return ""
    self.state, observation, done, info = out
    reward = float(info.get("reward", 0.0))
    self.total += reward
    if self._pay and reward:
      self.d.pay(reward)
    self.d.info.update({k: v for k, v in info.items() if k != "reward"})
    if done:
      self.d.end(types.STOP)
    elif not self.d.left["response"]:
      self.d.end(types.LENGTH)
    return observation

  def close(self):
    if self.state is not None:
      self._guarded(self.env.close, self.state)
