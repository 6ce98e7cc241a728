"""A reward that a random model earns now and then, and the ways a reward may go wrong."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from rljax import nums, types
from rljax.data import memory
from rljax.objectives import preference, rows
from rljax.rewards import run


def even_digits(episodes, ctx):
  """Share of even digits among the response's characters."""
  return np.asarray([sum(c in "02468" for c in e.response) / 3 for e in episodes])


def one(episodes, ctx):
  """The same for everybody."""
  return np.ones(len(episodes))


def uses_models(episodes, ctx, *, times: float = 1.0):
  """Mean log-probability of the response under the reference, and a fresh sample's length."""
  prefixes = [e.turns[0].tokens for e in episodes]
  scored = ctx.score("ref", prefixes, [e.turns[1].tokens for e in episodes])
  again = ctx.sample("policy", prefixes, [(i, 0) for i in range(len(episodes))], max_tokens=2)
  return np.asarray([times * logp.mean() + len(c.tokens)
                     for (logp, _), c in zip(scored, again)])


def first_two(episodes, ctx):
  """For an update of its own: two episodes, and one fault per call."""
  run.count(ctx, "derived")
  return episodes[:2]


@types.needs(lambda **_: {"ref_logp"}, unit=2)
def pairs_of_one_prompt(stats, batch):
  """DPO, and the share of its pairs whose rows have the same prompt (four tokens)."""
  loss = preference.dpo(stats, batch)
  prompt_P2S = rows.units(batch.inputs["tokens_BS"][:, :4], 2)
  same_P = jnp.all(prompt_P2S[:, 0] == prompt_P2S[:, 1], axis=-1).astype(jnp.float32)
  return loss.replace(metrics={**loss.metrics,
                               "same": nums.mean_metric(same_P, rows.valid(batch, 2))})


def renamed():
  """A memory that writes into the names of the tasks how many steps it has seen."""
  def tasks(state, asked, draws):
    assert draws.random() < 1
    return [dataclasses.replace(t, id=f"{t.id}/{state['steps']}") for t in asked]
  return memory.Memory(lambda: {"steps": 0}, lambda state, episodes, ctx: (
      {"steps": state["steps"] + 1}, episodes), tasks=tasks)
