"""Does what a policy says of an image carry its answer? A reader without the image is asked.

Vision-SR1, https://github.com/zli12321/Vision-SR1: a response is a description, a thought and an
answer; the same model answers the question from the description alone. Nothing of this second pass
is trained on.

`form` is a regular expression of a whole response with the groups "description" and "answer".
"""

import re
from collections.abc import Sequence

import numpy as np

from rljax import config, rng
from rljax.rewards import run
from rljax.types import Episode

FORM = (r"<description>(?P<description>.*?)</description>\s*<think>.*?</think>\s*"
        r"\\boxed\{(?P<answer>[^{}]*)\}")
MAX_CHARS = 8000  # a longer response has no form: regular expressions may be slow on long texts


def parts(text: str, form: str) -> tuple[str, str | None] | None:
  """(description, answer) of a response of this form, else None."""
  found = re.fullmatch(form, text.strip(), re.DOTALL) if len(text) <= MAX_CHARS else None
  return (found["description"], found["answer"].strip()) if found else None


def answer_of(text: str, mark: str) -> str:
  """What stands behind the last mark, up to a closing brace if there is one."""
  _, found, rest = text.rpartition(mark)
  return rest.partition("}")[0].strip() if found else ""


def answered(episodes: Sequence[Episode], ctx, *, mark: str = "\\boxed{") -> np.ndarray:
  """1 where the answer behind the mark is the task's, whatever the form. float64 [B]."""
  del ctx
  return np.array([float(answer_of(e.response, mark) == str(e.task.answer)) for e in episodes])


def formed(episodes: Sequence[Episode], ctx, *, form: str = FORM) -> np.ndarray:
  """1 where the response is a description, a thought and an answer in this order, and no more."""
  del ctx
  return np.array([float(parts(e.response, form) is not None) for e in episodes])


def sufficient(episodes: Sequence[Episode], ctx: run.Context, *, role: str = "policy",
               form: str = FORM, mark: str = "\\boxed{", grammar: str = "",
               template: str = "{description}\n{question}", greedy: bool = True,
               max_tokens: int = 0, longest: int = 0, on_long: str = "error") -> np.ndarray:
  """1 where the reader, who has the description and no image, gives the task's answer.

  A response without the form is read whole. An empty description earns 0, and so does one outside
  the grammar (counted as "off_grammar"), which keeps the answer from being written into it.

  Args:
    role: who reads: the policy as it is now, or a frozen role, for evaluations.
    form, mark: see the module and `answered`.
    grammar: a regular expression of whole descriptions; "" = any.
    template: of the reader's prompt; the question is `task.info["question"]`.
    greedy: one likeliest answer; else one sample, which makes the reward noisy.
    max_tokens: of the reader; 0 = the run's limit.
    longest: most tokens of the reader's prompt; 0 = any number that the sampler can serve.
    on_long: "error", or "left": cut the description at its beginning, never the question.

  Returns:
    float64 [B].

  Raises:
    ConfigError: no sampler, a task without a question, another `on_long`, a prompt that is too
      long, or a question that leaves no room for a description.
  """
  if ctx is None or ctx.sample is None:
    raise config.ConfigError("sufficient: this reward asks a model, and there is no sampler here")
  if on_long not in ("error", "left"):
    raise config.ConfigError(f"sufficient: on_long is 'error' or 'left', found {on_long!r}")
  prompts, rows = [], []
  for b, e in enumerate(episodes):
    if "question" not in e.task.info:
      raise config.ConfigError(f"task {e.task.id} has no info['question'] for the reader")
    found = parts(e.response, form)
    description = (e.response if found is None else found[0]).strip()
    if grammar and not re.fullmatch(grammar, description):
      run.count(ctx, "off_grammar")
      continue
    if description:
      prompts.append(_prompt(ctx, e, description, template, longest, on_long))
      rows.append(b)
  out = np.zeros(len(episodes))
  if rows:
    seeds = [(rng.number(episodes[b].task.id), b) for b in rows]
    limit = {"max_tokens": max_tokens} if max_tokens else {}
    said = ctx.sample(role, prompts, seeds, greedy=greedy, **limit)
    for b, completion in zip(rows, said, strict=True):
      text = ctx.tokenizer.decode(completion.tokens)
      out[b] = float(answer_of(text, mark) == str(episodes[b].task.answer))
  return out


def _prompt(ctx, episode, description, template, longest, on_long) -> np.ndarray:
  """Token ids of what the reader is asked, cut if it is too long and may be."""
  ids = lambda text: ctx.tokenizer.render(
      template.replace("{question}", episode.task.info["question"]).replace("{description}", text))
  out = ids(description)
  if not longest or len(out) <= longest:
    return out
  if on_long == "error" or len(ids("")) > longest:
    raise config.ConfigError(
        f"task {episode.task.id}: the reader's prompt has {len(out)} tokens, and {longest} fit; "
        f"raise `longest`, or set on_long='left' to cut the description (never the question)")
  low, high = 0, len(description)  # the fewest characters to leave out
  while low < high:
    middle = (low + high) // 2
    low, high = (low, middle) if len(ids(description[middle:])) <= longest else (middle + 1, high)
  run.count(ctx, "cut_descriptions")
  return ids(description[low:])
