"""A look at the first batch, aloud: what would quietly waste a run is said before it does."""

from collections.abc import Sequence

import numpy as np

from rljax import types


def check(episodes: Sequence[types.Episode], *, response_limit: int, prompt_limit: int,
          skipped_prompts: int, drawn_prompts: int) -> dict:
  """Numbers of the first batch and what is wrong with them.

  Args:
    episodes: all sampled episodes of the first step, with scores and what their turns were paid.
    response_limit, prompt_limit: tokens.
    skipped_prompts, drawn_prompts: how many prompts were too long, of how many drawn.

  Returns:
    {"numbers": {name: value}, "warnings": [sentence, ...]}, JSON-like.
  """
  sampled = [e for e in episodes if any(t.logp is not None for t in e.turns)]
  rewards = np.asarray([e.scores.get("reward", np.nan) + sum(t.reward for t in e.turns)
                        for e in episodes], float)
  known = rewards[np.isfinite(rewards)]
  numbers = {
      "episodes": len(episodes),
      "prompt_tokens_max": max((len(e.turns[0].tokens) for e in episodes), default=0),
      "prompt_overflow": skipped_prompts / max(drawn_prompts, 1),
  }
  warnings = []
  if numbers["prompt_overflow"] > 0:
    warnings.append(f"{numbers['prompt_overflow']:.0%} of the prompts are longer than "
                    f"limits.prompt={prompt_limit} and were skipped")
  if sampled:
    warnings += _sampled(sampled, numbers, response_limit)
  if len(known):
    warnings += _rewards(episodes, rewards, known, numbers)
  return {"numbers": numbers, "warnings": warnings}


def _sampled(sampled, numbers, response_limit):
  cut = np.mean([e.status == types.LENGTH for e in sampled])
  ended = sum(e.status == types.STOP for e in sampled)
  numbers.update(truncated=float(cut), ended=int(ended),
                 response_tokens_mean=float(np.mean([e.num_actions for e in sampled])))
  if not ended:
    return [f"the end token was never chosen in {len(sampled)} responses of at most "
            f"{response_limit} tokens: is it reachable (base model, chat template, "
            f"limits.response)?"]
  if cut > 0.2:
    return [f"{cut:.0%} of the responses were cut at limits.response={response_limit} tokens"]
  return []


def _rewards(episodes, rewards, known, numbers):
  groups: dict[int, list[float]] = {}
  for e, r in zip(episodes, rewards):
    if np.isfinite(r):
      groups.setdefault(e.group, []).append(r)
  several = [g for g in groups.values() if len(g) > 1]
  flat = float(np.mean([np.ptp(g) == 0 for g in several])) if several else 0.0
  numbers.update(reward_min=float(known.min()), reward_max=float(known.max()),
                 reward_mean=float(known.mean()), all_equal_groups=flat,
                 unscored=float(np.mean(~np.isfinite(rewards))))
  out = []
  if known.min() == known.max():
    out.append(f"every reward is {known[0]:g}: nothing can be learned from this batch")
  elif flat > 0.8:
    out.append(f"{flat:.0%} of the groups have all-equal rewards and teach nothing "
               "(tasks too easy or too hard, or the group too small)")
  if np.abs(known).max() > 100:
    out.append(f"rewards reach from {known.min():g} to {known.max():g}; is a scale missing?")
  if numbers["unscored"] > 0.05:
    out.append(f"{numbers['unscored']:.0%} of the episodes could not be scored")
  return out
