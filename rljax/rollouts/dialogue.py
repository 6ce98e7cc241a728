"""An episode while it is written: the one place where rollouts of several turns meet the sampler.

Token ids are the truth: what was sampled is appended as it came and never encoded again. Text is
decoded once per turn. What others say is encoded once, cut to its limits, and never trained on.
"""

import bisect
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rljax import config, rng, types
from rljax.envs import base
from rljax.rollouts import single_turn

_TOO_LONG = "the first observation does not fit limits.prompt"
EOS, STRING, CUT = "eos", "string", "cut"  # how a turn ended: end token, stop string, token limit


@dataclasses.dataclass(frozen=True)
class Said:
  """A turn that was not sampled, in the place of a sampler's completion: for demonstrations."""

  tokens: np.ndarray
  status: str = types.STOP
  logp: None = None
  raw_logp: None = None
  handle: None = None


class Shown:
  """In a sampler's place: says what the tasks demonstrate, the n-th turn in its n-th call.

  Attributes:
    turns: task number -> `task.info["turns"]`. A turn that does not end with one of the strings
      `stop` has its end token.
  """

  def __init__(self, sampler, tasks: Sequence[types.Task], stop: tuple[str, ...] = ()):
    self.tokenizer, self.limits, self._stop, self._call = sampler.tokenizer, sampler.limits, stop, 0
    self._ids = {rng.number(t.id): t.id for t in tasks}
    self.turns = {rng.number(t.id): t.info.get("turns", ()) for t in tasks}

  def generate(self, prompts, seeds, key, *, max_tokens, handles, keep, media):
    del prompts, key, handles, keep, media
    self._call += 1
    return [self._say(number, most) for (number, _), most in zip(seeds, max_tokens)]

  def _say(self, number, most):
    turns = self.turns[number]
    if len(turns) < self._call:
      raise config.ConfigError(f"task {self._ids[number]}: the demonstration in info['turns'] has "
                               f"{len(turns)} turns, and the episode is not done after them")
    text = turns[self._call - 1]
    whole = text.endswith(self._stop) if self._stop else False
    tokens = self.tokenizer.encode(text) if whole else self.tokenizer.response(text)
    return Said(tokens[:most], types.STOP if len(tokens) <= most else types.LENGTH)


class Dialogue(types.Transcript):
  """What one role has read and said so far.

  Attributes:
    turns: so far. info: for the episode. status: types.STOP, ... once it has ended, before that "".
    seed: (task number, sample number), its own randomness within a phase.
    ended: how the last turn of the policy ended.
    handle: of what the sampler still holds of it, so that the next turn reads only what is new.
  """

  def __init__(self, sampler, task: types.Task, *, sample: int, group: int, prompt=None, **info):
    prompt = task.prompt if prompt is None else prompt
    self.sampler, self.task, self.group = sampler, task, group
    self.seed, self.info, self.status, self.ended = (rng.number(task.id), sample), info, "", EOS
    self._prompt, self.handle = prompt, None
    self.left = {k: sampler.limits[k] for k in ("response", "observation")}
    self.turns = [types.Turn("user", sampler.tokenizer.render(prompt),
                             text=single_turn.text_of(prompt), media=task.media)]

  def fork(self, sample: int) -> "Dialogue":
    """A copy that goes on alone, with randomness of its own."""
    twin = object.__new__(Dialogue)
    twin.__dict__.update(self.__dict__, turns=list(self.turns), left=dict(self.left),
                         info=dict(self.info), seed=(self.seed[0], sample),
                         handle=self.handle and self.sampler.fork(self.handle))
    return twin

  def release(self) -> None:
    """No further turn will be sampled: the sampler need not hold anything of it."""
    if self.handle:
      self.sampler.release(self.handle)
      self.handle = None

  @property
  def tokens(self) -> np.ndarray:
    return np.concatenate([t.tokens for t in self.turns])

  def end(self, status: str, **info) -> None:
    self.status = status
    self.info.update(info)
    self.release()

  def read(self, observation: base.Observation, *, limit: int = 0, message: bool = False) -> None:
    """Appends what the environment said, or ends the episode if there is no room for it.

    Before the policy's first turn it belongs to the prompt (limits.prompt), later it is paid from
    limits.observation. The body is cut at its end; never anything that was there before.

    Args:
      limit: most tokens of this observation; 0 = what is left.
      message: as a chat message of the user's, the policy's answer to follow.
    """
    if observation == "":
      return None
    first = len(self.turns) == 1
    if first and message and not isinstance(self._prompt, str):
      return self._join(observation)
    room = (self.sampler.limits["prompt"] - len(self.turns[0].tokens) if first
            else self.left["observation"])
    limit = room if first or not limit else min(limit, room)
    if isinstance(observation, str):
      observation = base.Framed("", observation, "")
    head, tail = observation.head, observation.tail
    if message and not first:
      before, after = self.sampler.tokenizer.message_frame(ended=self.ended == EOS)
      head, tail = before + head, tail + after
    head, body, tail = map(self._encode, (head, observation.body, tail))
    if len(head) + len(tail) > limit or (first and len(head) + len(body) + len(tail) > limit):
      return (self.end(types.ERROR, error=_TOO_LONG) if first else self.end(types.LENGTH))
    kept = body[:limit - len(head) - len(tail)]
    tokens = np.concatenate([head, kept, tail]).astype(np.int32)
    if len(kept) < len(body):
      self.info["cut_observations"] = self.info.get("cut_observations", 0) + 1
    if first:
      prompt = self.turns[0]
      text = prompt.text + observation.head + observation.body + observation.tail
      self.turns[0] = types.Turn("user", np.concatenate([prompt.tokens, tokens]), text=text,
                                 media=prompt.media)
    else:
      self.left["observation"] -= len(tokens)
      self.turns.append(types.Turn("tool", tokens, text=self.sampler.tokenizer.decode(tokens)))

  def _join(self, observation):
    """Makes the first observation a part of the prompt's last chat message."""
    if isinstance(observation, base.Framed):
      observation = observation.head + observation.body + observation.tail
    last = self._prompt[-1]
    content = "\n\n".join(filter(None, (last["content"], observation)))
    prompt = [*self._prompt[:-1], {**last, "content": content}]
    tokens = self.sampler.tokenizer.render(prompt)
    if len(tokens) > self.sampler.limits["prompt"]:
      return self.end(types.ERROR, error=_TOO_LONG)
    self.turns[0] = types.Turn("user", tokens, text=single_turn.text_of(prompt),
                               media=self.task.media)

  def _encode(self, text: str) -> np.ndarray:
    """Token ids; characters that an alphabet lacks are left out and counted."""
    tokenizer = self.sampler.tokenizer
    try:
      return tokenizer.encode(text)
    except config.ConfigError:
      kept = [c for c in text if _encodes(tokenizer, c)]
      lost = self.info.get("lost_characters", 0) + len(text) - len(kept)
      self.info["lost_characters"] = lost
      return tokenizer.encode("".join(kept))

  def say(self, completion, stop: Sequence[str]) -> str:
    """Appends a turn of the policy, cut after its first stop string; its text."""
    n = cut_at(completion.tokens, stop, self.sampler.tokenizer)
    cut = n < len(completion.tokens)
    text = self.sampler.tokenizer.decode(completion.tokens[:n])
    self.ended = (EOS if completion.status == types.STOP and not cut
                  else STRING if any(s in text for s in stop) else CUT)
    logp, raw = (x if x is None else x[:n] for x in (completion.logp, completion.raw_logp))
    self.turns.append(types.Turn("assistant", completion.tokens[:n], logp, text, raw_logp=raw))
    self.left["response"] -= n
    self.handle = completion.handle
    return text

  def pay(self, reward: float) -> None:
    """Puts a reward at the end of the policy's last turn (a process reward)."""
    at = max(i for i, t in enumerate(self.turns) if t.role == "assistant")
    t = self.turns[at]
    self.turns[at] = types.Turn(t.role, t.tokens, t.logp, t.text, t.media, t.reward + reward,
                                t.raw_logp)

  def episode(self, **info) -> types.Episode:
    self.release()
    said = sum(t.role == "assistant" for t in self.turns)
    return types.Episode(self.task, tuple(self.turns), group=self.group,
                         status=self.status or types.LENGTH,
                         info={**self.info, "turns": said, **info})


def _encodes(tokenizer, character):
  try:
    tokenizer.encode(character)
    return True
  except config.ConfigError:
    return False


def cut_at(tokens: np.ndarray, stop: Sequence[str], tokenizer) -> int:
  """How many tokens to keep: up to the one that completes the first stop string, else all."""
  if not any(s in tokenizer.decode(tokens) for s in stop):
    return len(tokens)
  complete = lambda n: any(s in tokenizer.decode(tokens[:n]) for s in stop)
  return bisect.bisect_left(range(len(tokens) + 1), True, key=complete)


def advance(dialogues: Sequence[Dialogue], key, *, stop: Sequence[str] = (), turn_tokens: int = 0,
            settings: Mapping | None = None) -> list[str]:
  """One turn of every dialogue, in one call of their sampler; the texts said.

  All that a sampler does for rollouts of several turns happens here. Each goes on behind what the
  sampler holds of it; only what was said since is read.

  Args:
    dialogues: open ones of one role, each with room for a token.
    key: of this turn; it must differ from turn to turn.
    stop: strings after which a turn is cut.
    turn_tokens: most tokens of a turn; 0 = what is left of limits.response.
    settings: overrides of the run's sampling settings.
  """
  if not dialogues:
    return []
  settings = dict(settings or {})
  turn_tokens = settings.pop("max_tokens", turn_tokens)
  most = [min(turn_tokens or d.left["response"], d.left["response"]) for d in dialogues]
  done = dialogues[0].sampler.generate(
      [d.tokens for d in dialogues], [d.seed for d in dialogues], key,
      handles=[d.handle for d in dialogues], keep=True, max_tokens=most,
      media=[d.turns[0].media for d in dialogues], **settings)
  return [d.say(c, stop) for d, c in zip(dialogues, done, strict=True)]
