"""Preference data: from groups of scored episodes to adjacent rows, and what must be checked there.

Every builder is a select, `(episodes, *, ...) -> episodes`, and returns *units of adjacent
episodes*: chosen and rejected are entries 2i and 2i+1 (`rljax.objectives.rows`). What a loss reads
besides tokens (p, margin, win_rate, label, ...) is in `info["columns"]` of each episode; `columns`
turns it into arrays for `Batch.extras`. Episodes whose score is NaN or that failed take no part.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from rljax import config, types
from rljax.types import Episode


def with_columns(episode: Episode, **values: float) -> Episode:
  """The episode with these columns added."""
  merged = {**episode.info.get("columns", {}), **values}
  return dataclasses.replace(episode, info={**episode.info, "columns": merged})


def weighed(episodes: Sequence[Episode], *, columns: Mapping[str, Mapping[str, float]]
            ) -> list[Episode]:
  """A `select`: sums of scores as columns, for advantages that take their rewards apart.

  With {"task_B": {"answer": 0.9, "format": 0.1}}, `advantages.combine` of parts with
  `reward="task_B"` and the like normalises each on its own.

  Raises:
    ConfigError: an episode without such a score.
  """
  def value(e, weights):
    missing = [name for name in weights if name not in e.scores]
    if missing:
      raise config.ConfigError(f"weighed: there is no score {missing[0]!r}; there is: "
                               f"{', '.join(e.scores) or 'none'}")
    return sum(w * e.scores[name] for name, w in weights.items())
  return [with_columns(e, **{c: value(e, w) for c, w in columns.items()}) for e in episodes]


def with_turn_columns(episode: Episode, **values: Sequence[float]) -> Episode:
  """The same with columns that have one value per turn of the policy, in order.

  A batch holds them per action, float32 [B, T]: name them so, `kl_weight_BT`.
  """
  merged = {**episode.info.get("turn_columns", {}), **values}
  return dataclasses.replace(episode, info={**episode.info, "turn_columns": merged})


def turn_columns(episodes: Sequence[Episode], segment_BT: np.ndarray) -> dict[str, np.ndarray]:
  """Them per action; `segment_BT`: the turn of each. 0 where there is no turn; NaN where an episode
  lacks a column that others have, or has too few values."""
  out: dict[str, np.ndarray] = {}
  for name in sorted({n for e in episodes for n in e.info.get("turn_columns", {})}):
    table = np.full((len(segment_BT), segment_BT.max(initial=0) + 1), np.nan, np.float32)
    for b, e in enumerate(episodes):
      values = e.info.get("turn_columns", {}).get(name, ())
      table[b, :len(values)] = values[:table.shape[1]]
    own = np.take_along_axis(table, np.maximum(segment_BT, 0), axis=1)
    out[name] = np.where(segment_BT >= 0, own, np.float32(0.0))
  return out


def columns(episodes: Sequence[Episode], *, rows: int) -> dict[str, np.ndarray]:
  """All columns as float32 arrays [rows] (or [rows, ...] for vectors).

  Rows beyond the episodes hold 0; an episode that lacks a column others have holds NaN, which shows
  in the loss instead of passing for a value.
  """
  names = sorted({name for e in episodes for name in e.info.get("columns", {})})
  out = {}
  for name in names:
    values = [e.info.get("columns", {}).get(name) for e in episodes]
    shape = next(np.shape(v) for v in values if v is not None)
    array = np.zeros((rows, *shape), np.float32)
    for b, value in enumerate(values):
      array[b] = np.nan if value is None else value
    out[name] = array
  return out


def response_tokens(episode: Episode) -> tuple[int, ...]:
  """Everything the assistant said, as token ids."""
  return tuple(int(t) for turn in episode.turns if turn.role == "assistant" for t in turn.tokens)


def _scored(episodes: Iterable[Episode], score: str) -> dict[int, list[Episode]]:
  """Usable episodes by group, in order of appearance."""
  groups: dict[int, list[Episode]] = {}
  for e in episodes:
    if e.status != types.ERROR and math.isfinite(e.scores.get(score, math.nan)) and e.num_actions:
      groups.setdefault(e.group, []).append(e)
  return groups


def _pair(chosen: Episode, rejected: Episode, score: str, kappa: float) -> list[Episode]:
  gap = chosen.scores[score] - rejected.scores[score]
  shared = {"margin": gap}
  if kappa:
    shared["p"] = _sigmoid(kappa * gap)
  out = []
  for e in (chosen, rejected):
    own = {"win_rate": e.scores["win_rate"]} if "win_rate" in e.scores else {}
    out.append(with_columns(e, **shared, **own))
  return out


def _sigmoid(x: float) -> float:
  return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _from(episode: Episode, source: str | None) -> bool:
  return source is None or episode.info.get("source") == source


def best_worst(episodes: Sequence[Episode], *, score: str = "reward", min_margin: float = 0.0,
               min_chosen: float = -math.inf, chosen_from: str | None = None,
               rejected_from: str | None = None, kappa: float = 0.0) -> list[Episode]:
  """One pair per group: highest score over lowest score (iterative DPO, SPPO, self-rewarding, FLR).

  Args:
    episodes: several per group.
    score: which score ranks.
    min_margin: the pair is kept when its scores differ by more than this; 0 drops ties.
    min_chosen: least score of a chosen response (DNO: 5 of 6).
    chosen_from, rejected_from: only episodes with this info["source"] (temporal self-rewarding).
    kappa: > 0 adds the soft label p = sigmoid(kappa * (score_w - score_l)).

  Returns:
    chosen, rejected, chosen, ... with columns margin (and p, win_rate).
  """
  out = []
  for group in _scored(episodes, score).values():
    chosen = [e for e in group if _from(e, chosen_from)]
    rejected = [e for e in group if _from(e, rejected_from)]
    if not chosen or not rejected:
      continue
    w = max(chosen, key=lambda e: e.scores[score])
    l = min(rejected, key=lambda e: e.scores[score])
    if w.scores[score] >= min_chosen:
      out += _kept(w, l, score, min_margin, kappa)
  return out


def best(episodes: Sequence[Episode], *, score: str = "reward") -> list[Episode]:
  """The highest score of each group, alone: what RAFT (https://arxiv.org/abs/2304.06767) imitates.

  A group whose scores are all equal has none.
  """
  groups = _scored(episodes, score).values()
  found = [(max(g, key=lambda e: e.scores[score]), min(e.scores[score] for e in g)) for g in groups]
  return [e for e, low in found if e.scores[score] > low]


def _kept(w, l, score, min_margin, kappa) -> list[Episode]:
  differ = response_tokens(w) != response_tokens(l)
  if differ and w.scores[score] - l.scores[score] > min_margin:
    return _pair(w, l, score, kappa)
  return []


def all_pairs(episodes: Sequence[Episode], *, score: str = "reward", min_margin: float = 0.0,
              min_chosen: float = -math.inf, kappa: float = 0.0) -> list[Episode]:
  """Every pair of a group whose scores differ by more than `min_margin`; else as `best_worst`."""
  out = []
  for group in _scored(episodes, score).values():
    group = sorted(group, key=lambda e: -e.scores[score])
    for i, w in enumerate(group):
      if w.scores[score] >= min_chosen:
        for l in group[i + 1:]:
          out += _kept(w, l, score, min_margin, kappa)
  return out


def ranked(episodes: Sequence[Episode], *, score: str = "win_rate",
           kappa: float = 1.0) -> list[Episode]:
  """OSP's pairs: sorted by score, rank k with rank K+1-k, floor(K/2) per group, ties included.

  A pair with p = 1/2 is a pull to the reference there, so only identical responses are dropped.
  """
  out = []
  for group in _scored(episodes, score).values():
    group = sorted(group, key=lambda e: -e.scores[score])
    for w, l in zip(group[:len(group) // 2], reversed(group)):
      if response_tokens(w) != response_tokens(l):
        out += _pair(w, l, score, kappa)
  return out


def by_source(episodes: Sequence[Episode], *, chosen: str, rejected: str) -> list[Episode]:
  """Pairs by origin, whatever the scores: info["source"] == chosen over == rejected.

  SPIN ("data" over "opponent"), self-reinforcement (newer over older). Within a group the i-th of
  one source meets the i-th of the other; identical responses are dropped.
  """
  groups: dict[int, tuple[list, list]] = {}
  for e in episodes:
    if e.status != types.ERROR and e.num_actions and e.info.get("source") in (chosen, rejected):
      side = 0 if e.info["source"] == chosen else 1
      groups.setdefault(e.group, ([], []))[side].append(e)
  out = []
  for ws, ls in groups.values():
    for w, l in zip(ws, ls):
      if response_tokens(w) != response_tokens(l):
        out += [w, l]
  return out


def win_rates(episodes: Sequence[Episode], *, score: str = "reward", scale: float = 1.0,
              include_self: bool = True, prefer: Callable | None = None) -> list[Episode]:
  """Adds scores["win_rate"]: mean over the group of P(i beats j) = sigmoid(scale (s_i - s_j)).

  SPPO counts the response against itself (1/2), DNO and SPO do not. An episode that could not be
  scored keeps no win rate; a lone one has 1/2.

  Args:
    episodes: several per group.
    score: which score compares.
    scale: steepness; a score difference of 1/scale is a win probability of 0.73.
    include_self: whether j = i counts.
    prefer: leaf of `(episodes of a group) -> P [K, K]`, preferences that no score need express, in
      place of the sigmoid; NaN on its diagonal marks what cannot be compared.
  """
  groups = _scored(episodes, score)
  rate = {}
  for group in groups.values():
    if prefer is None:
      s = np.array([e.scores[score] for e in group], np.float64)
      p = 0.5 * (1.0 + np.tanh(0.5 * scale * (s[:, None] - s[None, :])))
    else:
      p = np.asarray(prefer(group), np.float64)
    known = np.flatnonzero(~np.isnan(np.diag(p)))
    for i, w in zip(known, win_rate(p[np.ix_(known, known)], include_self=include_self)):
      rate[id(group[i])] = float(w)
  return [e if id(e) not in rate else
          dataclasses.replace(e, scores={**e.scores, "win_rate": rate[id(e)]}) for e in episodes]


def win_rate(p: np.ndarray, *, include_self: bool = True) -> np.ndarray:
  """Mean of each row of P(i beats j) [K, K]; the diagonal counts as 1/2 or not at all."""
  k = len(p)
  others = p.sum(axis=1) - np.diag(p)
  if include_self:
    return (others + 0.5) / k
  return others / (k - 1) if k > 1 else np.full(k, 0.5)


def mismatched(episodes: Sequence[Episode], *, group: int = 4, score: str = "reward",
               threshold: float = 0.5) -> list[Episode]:
  """KTO's units: `group` labelled examples, then the prompt of each with the response of another.

  Column label is 1 where the score exceeds the threshold. The partner of an example is the next
  one of its unit (cyclic) with another prompt. Examples beyond a multiple of `group` are left out.

  Raises:
    ValueError: group < 2, fewer than `group` examples, or a unit with one prompt (no mismatched
      pair exists: z0 would be that of the data itself).
  """
  usable = [e for es in _scored(episodes, score).values() for e in es]
  if group < 2 or len(usable) < group:
    raise ValueError(f"{len(usable)} examples in units of {group}: KTO needs at least two examples "
                     "to mismatch, and one whole unit")
  units = len(usable) // group
  out = []
  for u in range(units):  # strided, so that the samples of one prompt land in different units
    unit = usable[u::units][:group]
    unit = [with_columns(e, label=float(e.scores[score] > threshold)) for e in unit]
    out += unit
    for i, e in enumerate(unit):
      others = [unit[(i + k) % group] for k in range(1, group)]
      partner = next((o for o in others if o.task.id != e.task.id), None)
      if partner is None:
        raise ValueError(f"unit {u}: all {group} examples share the prompt of task {e.task.id}")
      out.append(_swap_response(e, partner))
  return out


def _swap_response(prompt_of: Episode, response_of: Episode) -> Episode:
  def split(e):
    first = next(i for i, t in enumerate(e.turns) if t.role == "assistant")
    return e.turns[:first], e.turns[first:]
  said = tuple(dataclasses.replace(t, logp=None, raw_logp=None) for t in split(response_of)[1])
  info = {**prompt_of.info, "mismatched_with": response_of.task.id}
  return dataclasses.replace(prompt_of, turns=(*split(prompt_of)[0], *said), info=info)


def check_pairs(episodes: Sequence[Episode], *, size: int = 2,
                eos_id: int | None = None) -> list[Episode]:
  """Raises on pairs that a loss would train on silently; drops pairs of identical responses.

  Args:
    episodes: units of `size` adjacent episodes; the first two are chosen and rejected.
    size: 2, or 3 for SELM.
    eos_id: when given, a response that stopped by itself must end with this token.

  Raises:
    ValueError: a number that is not a multiple of `size`, partners with different prompts, an empty
      response (its mean log-probability is undefined), a stopped response whose end token is
      missing (it would teach endless outputs), or no pair whose responses differ.
  """
  episodes = list(episodes)
  if len(episodes) % size:
    raise ValueError(f"{len(episodes)} episodes are not units of {size}")
  kept = []
  for i in range(0, len(episodes), size):
    unit = episodes[i:i + size]
    said = [response_tokens(e) for e in unit]
    where = f"unit {i // size} (task {unit[0].task.id})"
    if any(e.task.id != unit[0].task.id for e in unit):
      raise ValueError(f"{where}: its responses answer different prompts")
    if not all(said):
      raise ValueError(f"{where}: an empty response")
    if eos_id is not None:
      for e, tokens in zip(unit, said):
        if e.status == types.STOP and tokens[-1] != eos_id:
          raise ValueError(f"{where}: a response stopped without the end token {eos_id}")
    if said[0] != said[1]:
      kept += unit
  if episodes and not kept:
    raise ValueError(f"all {len(episodes) // size} pairs have identical responses: no preference")
  return kept
