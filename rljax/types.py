"""The types every part of rljax speaks: episodes on the host, batches on the device.

Letters in array names: B rows, S model positions, T actions, V vocabulary. Host values carry none.
Left of `rljax.data.collate` everything is an `Episode` (host Python, may fail, failure is data);
right of it everything is a `Batch` (fixed-shape arrays, pure jitted functions).
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray
PyTree = Any

# A prompt's token FIRST_PATCH + j is patch j of its images, image after image, each with as many;
# so far beyond any vocabulary that no model can say one.
FIRST_PATCH = 1 << 20

# How an episode ended. `stop`: the policy chose an end token; `length`: the token limit cut it.
STOP, LENGTH, ERROR = "stop", "length", "error"


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """One problem, as plain data.

  Attributes:
    id: unique in its task set; randomness is derived from it, so it must be stable.
    prompt: the text, or a list of chat messages `{"role", "content"}`.
    answer: what a verifier compares with (JSON-like).
    verifier: "module:function" of `(task, text) -> float`, or "" when a reward brings its own.
    demo: a correct response as text, for supervised training; "" when there is none.
    info: anything else (JSON-like); logged with every episode.
    media: images, uint8 [height, width, 3] each, read by the model adapter only.
  """

  id: str
  prompt: str | list
  answer: Any = None
  verifier: str = ""
  demo: str = ""
  info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  media: tuple = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Turn:
  """A contiguous span of tokens with one speaker. Token ids are the truth, text is a view.

  Attributes:
    role: "assistant" for what a policy sampled, anything else for what it read.
    tokens: int32 [n].
    logp: float32 [n], log-probability under the distribution sampled from; None if not sampled.
    text: decoded view of `tokens` without the end token.
    reward: reward given at the end of this turn (process rewards; usually 0).
    raw_logp: float32 [n], log-probability under the unwarped policy (temperature 1, no filters).
  """

  role: str
  tokens: np.ndarray
  logp: np.ndarray | None = None
  text: str = ""
  media: tuple = ()
  reward: float = 0.0
  raw_logp: np.ndarray | None = None


class Transcript:
  """What can be read off `turns`."""

  turns: Sequence[Turn]

  @property
  def prompt(self) -> str:
    """Text of everything that the assistant did not say."""
    return "".join(t.text for t in self.turns if t.role != "assistant")

  @property
  def response(self) -> str:
    """Text of everything the assistant said."""
    return "".join(t.text for t in self.turns if t.role == "assistant")

  @property
  def num_actions(self) -> int:
    return sum(len(t.tokens) for t in self.turns if t.role == "assistant")


@dataclasses.dataclass(frozen=True, eq=False)
class Episode(Transcript):
  """One attempt at a task.

  Attributes:
    group: identifies the episodes whose rewards are compared (same task, same prompt).
    scores: rewards by name; "reward" is their combination. NaN means "could not be scored".
    status: STOP, LENGTH or ERROR.
    info: what the rollout or a reward wants logged. `role`: who the assistant was (default policy).
  """

  task: Task
  turns: tuple[Turn, ...]
  group: int = 0
  scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
  status: str = STOP
  info: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@flax.struct.dataclass
class Batch:
  """Fixed-shape arrays of one update; the only thing an objective sees besides `TokenStats`.

  Rows of one group are adjacent when all groups have one size (group-major). T counts *actions*
  (tokens the assistant produced, end token included), packed to the left: observations and
  prompts are in `inputs` only, so neighbours in T are neighbours in the policy's own decisions.

  Attributes:
    inputs: read by the model adapter only (tokens, positions of the actions, images, ...).
    actions_BT: int32 token ids.
    mask_BT: float32, 1 where the token is trained on.
    behav_logp_BT: float32, log-probability when sampled (warped distribution).
    old_logp_BT: log-probability under the trainer before the first update; None when there is one
      update per batch (it then equals stop_gradient of the current one).
    reward_BT: float32, reward paid at that action (terminal rewards at the last action).
    discount_BT: float32, 0 at the last action of an episode, else the discount.
    adv_BT: float32, set by the advantage function.
    valid_B: float32, 0 for padding rows and rows that could not be scored.
    group_B: int32 group ids, 0 <= id < B; -1 for padding rows.
    extras: named columns with leading dimension B.
  """

  inputs: PyTree
  actions_BT: Array
  mask_BT: Array
  behav_logp_BT: Array
  reward_BT: Array
  discount_BT: Array
  adv_BT: Array
  valid_B: Array
  group_B: Array
  old_logp_BT: Array | None = None
  ref_logp_BT: Array | None = None
  value_BT: Array | None = None
  extras: dict[str, Array] = flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class TokenStats:
  """What a model says about a batch, per action.

  Attributes:
    logp_BT: float32 log-probability of each action at the training temperature.
    entropy_BT: float32 entropy of the distribution it was drawn from, in nats.
    value_BT: scalar head, one per action.
    extras: outputs of other heads.
  """

  logp_BT: Array
  entropy_BT: Array | None = None
  value_BT: Array | None = None
  extras: dict[str, Array] = flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class Loss:
  """A sum and its weight, never a mean: micro-batches and devices add both, then divide once."""

  total: Array
  weight: Array
  metrics: dict[str, "Metric"] = flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class TrainState:
  """Data only. `step` counts calls; `skipped` those of them that were not finite, or empty."""

  step: Array
  params: PyTree
  opt_state: PyTree
  skipped: Array


# --- metrics: the type says how two of them merge ------------------------------------------------


def _np(x):
  """jax.numpy under jit; numpy for what was fetched, of which each operation would be a call."""
  return np if isinstance(x, np.ndarray | np.generic) else jnp


@flax.struct.dataclass
class Mean:
  total: Array
  weight: Array

  def merge(self, other: "Mean") -> "Mean":
    return Mean(self.total + other.total, self.weight + other.weight)

  def compute(self) -> Array:
    return self.total / _np(self.weight).maximum(self.weight, 1e-30)


@flax.struct.dataclass
class Max:
  value: Array

  def merge(self, other: "Max") -> "Max":
    return Max(_np(self.value).maximum(self.value, other.value))

  def compute(self) -> Array:
    return self.value


@flax.struct.dataclass
class Min:
  value: Array

  def merge(self, other: "Min") -> "Min":
    return Min(_np(self.value).minimum(self.value, other.value))

  def compute(self) -> Array:
    return self.value


@flax.struct.dataclass
class Sum:
  value: Array

  def merge(self, other: "Sum") -> "Sum":
    return Sum(self.value + other.value)

  def compute(self) -> Array:
    return self.value


Metric = Mean | Max | Min | Sum


def merge_metrics(a: dict[str, Metric], b: dict[str, Metric]) -> dict[str, Metric]:
  """Merges two dicts with the same keys."""
  return {k: a[k].merge(b[k]) for k in a}


# --- whole: what cannot be split over hosts -------------------------------------------------------


def whole(fn: Callable) -> Callable:
  """Marks a rollout that compares tasks, or a reward that compares groups, with each other.

  Of several hosts one alone runs it, on everything; of others each host does its own groups.
  """
  fn.is_whole = True
  return fn


def is_whole(fn: Callable) -> bool:
  """Whether a function, or a function bound to it as an argument, is so marked."""
  if isinstance(fn, functools.partial):
    return is_whole(fn.func) or any(map(is_whole, (*fn.args, *fn.keywords.values())))
  if isinstance(fn, Mapping | list | tuple):
    return any(map(is_whole, fn.values() if isinstance(fn, Mapping) else fn))
  return getattr(fn, "is_whole", False)


# --- needs: what an objective asks of the batch builder -------------------------------------------


def needs(rule: Callable[..., set[str]], unit: Callable[..., int] | int = 1):
  """Declares what an objective reads, as a function of its hyperparameters.

  `rule(**hyperparameters) -> set` of "adv", "ref_logp", "old_logp", "value", "entropy_grad", and
  "scores": the updated model's head, which then is not a policy whose entropy is logged. The
  builder calls it with the defaults filled in, so a coefficient of zero costs nothing. An objective
  that needs "old_logp" can do without when there is one update per batch; an advantage cannot.
  `unit` (a number, or such a function): how many adjacent rows it reads together, two for pairs;
  minibatches keep them together.
  """
  def wrap(fn):
    fn.needs_rule, fn.unit_rule = rule, unit if callable(unit) else lambda **_: unit
    return fn
  return wrap


def needs_of(fn: Callable) -> set[str]:
  """The needs of an objective, or of a `functools.partial` of one."""
  return set(_declared(fn, "needs_rule", ()))


def unit_of(fn: Callable) -> int:
  """How many adjacent rows an objective (or a `functools.partial` of one) reads together."""
  return _declared(fn, "unit_rule", 1)


def _declared(fn, name, default):
  base, bound = fn, {}
  while isinstance(base, functools.partial):
    bound = {**base.keywords, **bound}
    base = base.func
  rule = getattr(base, name, None)
  if rule is None:
    return default
  parameters = inspect.signature(base).parameters.values()
  defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
  return rule(**{**defaults, **bound})
