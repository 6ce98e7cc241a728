"""ReST-MCTS*'s testbed: chains worked out step by step, of which the last value alone is judged.

A product with 0 forgets what stood before it: a wrong step may still end in the right answer, so a
filter of outcomes keeps some wrong traces.
"""

from collections.abc import Sequence

import numpy as np

from rljax import rng, types
from rljax.data import chains, memory, pairs, planted
from rljax.data import tasks as tasks_lib
from rljax.evals import pass_at_k
from rljax.rewards import verify
from rljax.types import Episode, Task

STEPS, MODULUS = 5, 5


@verify.bounded
def outcome(task: Task, text: str) -> float:
  """Verifier: the last value is right, whatever stands before it."""
  return float(text.rpartition("=")[2] == str(task.info["values"][-1]))


def problems(*, split: str = "train", size: int = 0, min_steps: int = STEPS) -> tasks_lib.TaskSet:
  """Chains of `min_steps` to 5 operations modulo 5: 20,000 to train on, 300 to test."""
  return planted.verified(verifier="experiments/rest-mcts-star.py:outcome", tasks=lambda: (
      chains.running(steps=STEPS, min_steps=min_steps, modulus=MODULUS, operators="+-*",
                     separator=";", restate=True, split=split,
                     size=size or {"train": 20000, "test": 300}[split])))


def flawed(task: Task, text: str) -> bool:
  """Whether any step is wrong, missing or too many."""
  return text.split(";") != chains.written(task.prompt, task.info["values"])


def kept(*, score: str = "correct") -> memory.Memory:
  """Counts the traces that a filter of outcomes would keep. Metrics: `traces` so far, and `flawed`,
  the share of them with a wrong step. Episodes of other roles than the policy do not count."""
  def update(state, episodes: Sequence[Episode], ctx=None):
    del ctx
    right = [e for e in episodes if e.info.get("role", "policy") in ("policy", "start")
             and e.scores.get(score, 0.0) >= 0.5]
    bad = sum(flawed(e.task, e.response) for e in right)
    return {"traces": state["traces"] + len(right), "bad": state["bad"] + bad}, episodes

  return memory.Memory(lambda: {"traces": 0, "bad": 0}, update, lambda state: {
      "traces": float(state["traces"]), "flawed": state["bad"] / max(state["traces"], 1)})


# --- the first value model ------------------------------------------------------------------------


def worth(right_steps: int, wrong_steps: int, length: int) -> float:
  """The inferred value of a partial answer: right steps, then wrong ones (section 3.2).

  The node before the first wrong step needs m = length - right_steps + 1 steps, itself included, to
  the end; each wrong step takes (1 - V) / m away.
  """
  v, m = right_steps / length, length - right_steps + 1
  for _ in range(wrong_steps):
    v = max(0.0, v - (1.0 - v) / m)
  return v


def worked_out(task: Task, wrong_at: int, draws: np.random.Generator) -> list[str]:
  """The steps of an answer, with a wrong value at step number `wrong_at` (0 = none) from which the
  others follow."""
  value, values = int(task.prompt[0]), []
  for number, (op, digit) in enumerate(chains.TERM.findall(task.prompt), 1):
    error = (number == wrong_at) * draws.integers(1, MODULUS)
    value = (chains.APPLY[op](value, int(digit)) + error) % MODULUS
    values.append(value)
  return chains.written(task.prompt, values)


def labelled(samplers, tasks: Sequence[Task], key, *, role: str = "reward_model",
             group_size: int = 2, env=None, settings: dict | None = None) -> list[Episode]:
  """Per task a right answer ("chosen") and one with a mistake ("rejected"), a turn per step.

  Before each step and in the end, `return_BT` says what the partial answer is worth. Nothing is
  sampled; one task is always shown the same way.
  """
  del key, group_size, env, settings
  tokenizer, out = samplers[role].tokenizer, []
  end = types.Turn("assistant", np.array([tokenizer.eos_id], np.int32))
  for i, task in enumerate(tasks):
    draws, length = rng.host(0, "labelled", task.id), len(task.info["values"])
    for source, at in (("chosen", 0), ("rejected", int(draws.integers(1, length + 1)))):
      steps = worked_out(task, at, draws)
      said = [s + ";" * (k < length) for k, s in enumerate(steps, 1)]
      turns = [types.Turn("assistant", tokenizer.encode(s), text=s) for s in said]
      right = [k if not at else min(k, at - 1) for k in range(length + 1)]
      out.append(pairs.with_turn_columns(
          Episode(task, (types.Turn("user", tokenizer.render(task.prompt), text=task.prompt),
                         *turns, end), group=i, info={"source": source, "role": role}),
          return_BT=[worth(r, k - r, length) for k, r in enumerate(right)]))
  return out


def measure(episodes: Sequence[Episode], problems: int, ctx) -> dict[str, float]:
  """`pass_at_1`; of searches the `tokens` generated per problem, the share of answers that they
  `accepted`, and the `precision` of these."""
  out = pass_at_k.measure(episodes, problems, ctx)
  tokens = [e.info.get("tokens", e.num_actions) for e in episodes]
  taken = [e.scores["correct"] for e in episodes if e.info.get("accepted")]
  return {**out, "tokens": float(np.mean(tokens)), "accepted": len(taken) / max(len(episodes), 1),
          "precision": float(np.mean(taken)) if taken else float("nan")}
