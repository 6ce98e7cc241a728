"""What an environment is, and the one for tools that a policy calls with tags.

An environment is a description; what changes is its *state*, a value that can be pickled, copied
and continued twice: episodes fork, and a rollout can be looked at again.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from rljax import config
from rljax.types import Task


@dataclasses.dataclass(frozen=True)
class Framed:
  """An observation whose `body` alone may be cut to a token limit; head and tail (tags) stay."""

  head: str
  body: str
  tail: str


Observation = str | Framed


class Env:
  """A world that answers text with text.

  Attributes:
    stop: strings that end a turn of the policy; it says nothing after the first of them.
    name: for logs, and for what is kept per game.
    players: how many speak; with more than one, `seat` says who is next.
  """

  stop: tuple[str, ...] = ()
  name: str = ""
  players: int = 1

  def reset(self, task: Task, seed: int) -> tuple[Any, Observation]:
    """A new episode: its state, and what the policy reads after the task's prompt ("" = nothing).

    Args:
      seed: decides everything random in this episode, together with the task.
    """
    raise NotImplementedError

  def step(self, state, text: str) -> tuple[Any, Observation, bool, Mapping[str, Any]]:
    """Answers one turn: the next state, the observation for whoever speaks next, done, info.

    The given state stays valid. `info` is JSON-like and is logged with the episode (later steps
    overwrite); "reward" is paid for this step, a float, or one per player.
    """
    raise NotImplementedError

  def seat(self, state) -> int:
    """Whose turn it is, 0 <= seat < players."""
    del state
    return 0

  def legal(self, state) -> list[str]:
    """What can be said now, where that is a list: for scripted players."""
    raise NotImplementedError

  def close(self, state) -> None:
    """Frees what may be kept alive for this state. The state stays valid."""


class Tool:
  """One thing a policy can call: `start` for an episode, then `call`, over picklable states.

  Attributes:
    output: the tag around what it returns.
  """

  output: str = "output"

  def start(self, task: Task, seed: int) -> Any:
    del task, seed

  def call(self, state, text: str) -> tuple[Any, str, bool]:
    """Next state, what the policy reads, and whether the call was in error (then a message)."""
    raise NotImplementedError

  def close(self, state) -> None:
    """See `Env.close`."""


@dataclasses.dataclass(frozen=True)
class ToolsState:
  """Of `Tools`: the tools' own states, and how often the policy did what."""

  tools: Mapping[str, Any]
  calls: int = 0
  errors: int = 0
  invalid: int = 0


class Tools(Env):
  """Turns of `<tool>text</tool>` or `<answer>text</answer>`; see `tools`."""

  def __init__(self, made: Mapping[str, Tool], answer: str, max_calls: int, pad: str,
               invalid_text: str, limit_text: str):
    self.tools, self._answer, self._max_calls = dict(made), answer, max_calls
    self._pad, self._invalid, self._limit = pad, invalid_text, limit_text
    tags = [*self.tools, *([answer] if answer else [])]
    self.stop = tuple(f"</{tag}>" for tag in tags)
    self._block = re.compile(rf"<({'|'.join(map(re.escape, tags))})>(.*?)</\1>", re.DOTALL)
    every = {*tags, *(tool.output for tool in self.tools.values())}
    self._any_tag = re.compile(rf"<(?=/?(?:{'|'.join(map(re.escape, sorted(every)))})>)")

  def reset(self, task, seed):
    return ToolsState({name: tool.start(task, seed) for name, tool in self.tools.items()}), ""

  def step(self, state, text):
    found = self._block.search(text)
    if found is None:
      state = dataclasses.replace(state, invalid=state.invalid + 1)
      return state, self._invalid, not self._invalid, _counts(state)
    name, inside = found[1], found[2]
    if name == self._answer:
      return state, "", True, {**_counts(state), "answer": inside.strip()}
    tool = self.tools[name]
    if state.calls >= self._max_calls:
      state = dataclasses.replace(state, calls=state.calls + 1)
      return state, self._framed(tool, self._limit), False, _counts(state)
    after, body, failed = tool.call(state.tools[name], inside)
    state = dataclasses.replace(state, tools={**state.tools, name: after}, calls=state.calls + 1,
                                errors=state.errors + failed)
    return state, self._framed(tool, body), False, _counts(state)

  def close(self, state):
    for name, tool in self.tools.items():
      tool.close(state.tools[name])

  def _framed(self, tool, body):
    """The tool's words between its tags; a tag among the words ("<answer>") is broken up."""
    body = self._any_tag.sub("< ", body)
    return Framed(f"{self._pad}<{tool.output}>", body, f"</{tool.output}>{self._pad}")


def _counts(state):
  return {"calls": state.calls, "tool_errors": state.errors, "invalid_turns": state.invalid}


def tools(*, tools: Mapping[str, Callable], answer: str = "answer", max_calls: int = 4,
          pad: str = "\n\n",
          invalid_text: str = "\nMy previous turn was invalid: it must end with a call or an "
          "answer between its tags.\n",
          limit_text: str = "Call limit reached.") -> Env:
  """An environment of tools, each called by its tag: Search-R1's grammar, ReTool's, any mixture.

  The first complete block of a turn counts: a tool's runs it and returns its output between
  `<output>` tags; the answer's ends the episode. Tags inside an output are broken up, so that no
  document can end an episode or fake a turn.

  Args:
    tools: tag -> leaf of a `Tool`, such as {"search": fn("rljax.envs.retrieval:bm25", ...)}.
    answer: its tag; "" = only the end of the budget ends an episode.
    max_calls: executed calls per episode; a later one reads `limit_text` and is counted.
    pad: white space around an output.
    invalid_text: read after a turn without a complete block; "" = that ends the episode.

  Raises:
    ConfigError: no tools, or the answer's tag is a tool's too.
  """
  if not tools or answer in tools:
    raise config.ConfigError(f"tools: found the tools {list(tools)} and the answer tag {answer!r}")
  made = {name: make() for name, make in tools.items()}
  return Tools(made, answer, max_calls, pad, invalid_text, limit_text)
