"""`rljax-eval`: what more tokens at test time buy, as accuracy against tokens for every search."""

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from rljax import config as config_lib
from rljax import rng, types
from rljax.rewards import run as rewards_lib
from rljax.rollouts import searched
from rljax.search import found as found_lib
from rljax.train import build, export

ConfigError = config_lib.ConfigError
SEARCHES, GUIDED = searched.SEARCHES, searched.GUIDED  # these: the likelihood, if no value is named


def load(spec: str, workdir: str, overrides: Mapping) -> build.Run:
  """A run with the weights of its newest checkpoint, or with those its config begins with.

  Raises:
    ConfigError: neither a config nor a run folder, or one that cannot be read.
  """
  if workdir:
    if spec or overrides:
      raise ConfigError("--workdir brings its own config: leave --config out")
    return export.load_run(workdir, "policy")[1]
  if not spec:
    raise ConfigError("say what to evaluate: --workdir RUN, or --config FILE")
  run = build.build(config_lib.load(spec, overrides))
  run.roles.init()
  return run


def value_of(run: build.Run, role: str = "") -> found_lib.Value:
  """How good a text is: what the role's scalar head says at its end, or with "" the mean
  probability of its tokens under the policy.

  Neither sees a reference answer.

  Raises:
    ConfigError: there is no such role, or it has no scalar head.
  """
  def ids(tasks, texts):
    prompts = [run.tokenizer.render(t.prompt) for t in tasks]
    return prompts, [run.tokenizer.encode(t) for t in texts]

  def head(tasks, texts):
    return run.scorer.value(role, [np.concatenate(pair) for pair in zip(*ids(tasks, texts))])

  def likelihood(tasks, texts):
    found = run.scorer.score("policy", *ids(tasks, texts))
    return [float(np.exp(np.mean(logp))) if len(logp) else 0.0 for logp, _ in found]
  if not role:
    return likelihood
  head([], [])  # refuses the role before anything is searched
  return head


def curves(run: build.Run, tasks: Sequence[types.Task], searches: Sequence[str], budget: int, *,
           value: str = "", seed: int = 0, settings: Mapping | None = None
           ) -> dict[str, list[dict[str, float]]]:
  """Per search, {"budget", "tokens", "accuracy"} at budget, budget / 2, budget / 4, ...

  Each search runs once, to the whole budget; a point is what it would have answered with less. A
  problem without an answer by then is not solved. `tokens`: what problems had spent on average.

  Args:
    searches: names of `SEARCHES`. budget: generated tokens per problem.
    value: see `value_of`.

  Raises:
    ConfigError: an unknown search, no problem, or a budget below one token.
  """
  unknown = sorted(set(searches) - set(SEARCHES))
  if unknown or not searches:
    raise ConfigError(f"--search: there is no {', '.join(map(repr, unknown)) or 'name'}; there is: "
                      f"{', '.join(SEARCHES)}")
  if not tasks or budget < 1:
    raise ConfigError(f"nothing to do: {len(tasks)} problems, a budget of {budget} tokens")
  points = [budget >> k for k in range(budget.bit_length())][::-1]
  out = {}
  for name in searches:
    judge = value_of(run, value) if value or name in GUIDED else None
    found = SEARCHES[name](run.samplers, tasks, rng.key(seed, "search", name), budget=budget,
                           value=judge, settings=settings)
    texts = {(i, f.text) for i, one in enumerate(found) for f in one}
    correct = _graded(run, tasks, sorted(texts), seed)
    out[name] = [{
        "budget": p,
        "tokens": float(np.mean([max((f.tokens for f in one if f.tokens <= p), default=0)
                                 for one in found])),
        "accuracy": float(np.mean([correct.get((i, found_lib.at(one, p)), False)
                                   for i, one in enumerate(found)]))} for p in points]
  return out


def _graded(run, tasks, texts, seed) -> dict[tuple[int, str], bool]:
  episodes = [types.Episode(tasks[i], (
      types.Turn("user", run.tokenizer.render(tasks[i].prompt)),
      types.Turn("assistant", run.tokenizer.encode(text), text=text))) for i, text in texts]
  ctx = rewards_lib.Context(0, seed, run.tokenizer)
  episodes, _ = rewards_lib.score_all(episodes, {"correct": run.eval_verifier}, {}, ctx,
                                      deadline=run.config.reward_deadline)
  return {key: e.scores["correct"] >= 1.0 - 1e-6 for key, e in zip(texts, episodes)}


def table(found: Mapping[str, Sequence[Mapping]]) -> str:
  """Searches side by side; the last row is the whole budget."""
  names = list(found)
  lines = [f"{'budget':>8}" + "".join(f"{n:>22}" for n in names),
           f"{'':>8}" + f"{'accuracy (tokens)':>22}" * len(names)]
  for row in zip(*found.values()):
    cells = [f"{r['accuracy']:.3f} ({r['tokens']:.0f})" for r in row]
    lines.append(f"{row[0]['budget']:>8}" + "".join(f"{c:>22}" for c in cells))
  return "\n".join(lines)


def draw(found: Mapping[str, Sequence[Mapping]], path: str) -> None:
  """Accuracy against tokens, one line per search.

  Raises:
    ConfigError: matplotlib is not installed.
  """
  try:
    import matplotlib
  except ImportError:
    raise ConfigError("the curve needs matplotlib: pip install 'rljax[reproduce]'") from None
  matplotlib.use("Agg")
  from matplotlib import pyplot
  figure, axis = pyplot.subplots(figsize=(6, 4))
  for name, rows in found.items():
    seen = [r for r in rows if r["tokens"]]
    axis.plot([r["tokens"] for r in seen], [r["accuracy"] for r in seen], marker="o", label=name)
  axis.set_xscale("log", base=2)
  axis.set_xlabel("generated tokens per problem")
  axis.set_ylabel("accuracy")
  axis.legend()
  figure.savefig(path, dpi=120, bbox_inches="tight")
  pyplot.close(figure)


def run(spec: str, workdir: str, overrides: Mapping, *, searches: Sequence[str], budget: int,
        out: str, problems: str = "", limit: int = 0, value: str = "", seed: int = 0,
        temperature: float = 1.0) -> str:
  """The command: searches, writes OUT/search.json and OUT/search.png; the table to print."""
  loaded = load(spec, workdir, overrides)
  sets = loaded.evals
  if not sets or (problems and problems not in sets):
    raise ConfigError(f"--problems: there is no set {problems!r}; there is: {', '.join(sets)}")
  asked, fitting = loaded.problems(sets[problems or next(iter(sets))], limit)
  found = curves(loaded, fitting, searches, budget, value=value, seed=seed,
                 settings={"temperature": temperature, "greedy": False})
  os.makedirs(out, exist_ok=True)
  with open(os.path.join(out, "search.json"), "w") as f:
    json.dump({"problems": len(fitting), "long_prompt": len(asked) - len(fitting), "seed": seed,
               "value": value, "searches": found}, f, indent=2)
  draw(found, os.path.join(out, "search.png"))
  return table(found)
