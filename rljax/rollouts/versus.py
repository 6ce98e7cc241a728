"""Games between seats: a policy against itself, another role, or a scripted player."""

from collections.abc import Callable, Mapping, Sequence

from rljax import config, rng, types
from rljax.data import pairs
from rljax.envs import base
from rljax.rollouts import dialogue


def versus(samplers: Mapping, tasks: Sequence[types.Task], key, *, env: base.Env,
           group_size: int = 8, seats: tuple[str | Callable, ...] = ("policy", "policy"),
           alternate: bool = True, record: tuple[str, ...] = (), max_turns: int = 50,
           turn_tokens: int = 0, observation_tokens: int = 0, message: bool = False,
           settings: dict | None = None) -> list[types.Episode]:
  """`group_size` games per task; one episode for every seat that a role plays, in its own view.

  All games advance together: one sampler call per role and round. A seat's episode holds the
  observations it got and what it said; the other's words are not in it. Its `info` has `role`,
  `seat` (0 moves first in most games), `return` (its reward), `game`, and what the environment
  reports; the columns `seat_B` and `game_B` (the number of the game) reach advantages, and the
  group is the task. Baselines per seat: `advantages.group_norm(by=("group_B", "seat_B"))`, or
  `data.memory.baselines`.

  A game that is not over after `max_turns` turns, or whose seat to move has no tokens left, is a
  draw: every return 0, status LENGTH. An environment that raises makes every seat's status ERROR.

  Args:
    env: leaf of an environment with as many players as there are seats.
    seats: per seat a role's name, or a scripted player `(env, state, generator) -> text`.
    alternate: rotate the seats from one sample of a task to the next.
    record: roles whose episodes are returned; () = of all roles.
    max_turns: of one game, all seats together.
    turn_tokens, observation_tokens, message, settings: as in `rljax.rollouts.multi_turn`.

  Raises:
    ConfigError: as many seats as players are needed; a seat's role does not exist.
  """
  if len(seats) != env.players:
    raise config.ConfigError(f"versus: {len(seats)} seats for a game of {env.players} players")
  for seat in seats:
    if not callable(seat) and seat not in samplers:
      raise config.ConfigError(f"versus: there is no role {seat!r} for a seat")
  table = [(i, g) for i in range(len(tasks)) for g in range(group_size)]
  seeds = rng.integers(rng.fold(key, "environment"), [(rng.number(tasks[i].id), g)
                                                      for i, g in table])
  games = []
  for n, ((i, g), seed) in enumerate(zip(table, seeds)):
    shift = g % len(seats) if alternate else 0
    games.append(_Game(env, tasks[i], seats[-shift:] + seats[:-shift], seed, samplers, n, i, g,
                       observation_tokens, message, max_turns))
  for turn in range(max_turns):
    waiting: dict[str, list[_Game]] = {}
    for game in games:
      role = game.next_role()
      if role:
        waiting.setdefault(role, []).append(game)
    for role, some in sorted(waiting.items()):
      speakers = [game.dialogues[game.seat] for game in some]
      texts = dialogue.advance(speakers, rng.fold(key, turn, role), stop=env.stop,
                               turn_tokens=turn_tokens, settings=settings)
      for game, text in zip(some, texts):
        game.step(text)
  return [e for game in games for e in game.episodes() if not record or e.info["role"] in record]


def demonstrations(samplers: Mapping, tasks: Sequence[types.Task], key, *, env: base.Env,
                   player: Callable, role: str = "policy", end_token: bool = False,
                   max_turns: int = 50) -> list[types.Episode]:
  """Games of a scripted player against itself, shown from one seat each: for supervised training.

  One episode per task; the seat is its place in the list modulo the players. Nothing is sampled.

  Args:
    player: leaf of `(env, state, generator) -> text`.
    end_token: a turn ends with the end token, as one does that is not cut by `turn_tokens`.
  """
  seeds = rng.integers(rng.fold(key, "environment"), [(rng.number(t.id), 0) for t in tasks])
  episodes = []
  for n, (task, seed) in enumerate(zip(tasks, seeds)):
    seats = [player] * env.players
    seats[n % env.players] = role
    game = _Game(env, task, tuple(seats), seed, samplers, n, n, 0, 0, False, max_turns)
    while game.next_role():
      speaker, tokenizer = game.dialogues[game.seat], samplers[role].tokenizer
      text = player(env, game.state, rng.host(seed, "shown", game.left))
      speaker.say(dialogue.Said(tokenizer.response(text) if end_token else tokenizer.encode(text)),
                  ())
      game.step(text)
    episodes += game.episodes()
  return episodes


class _Game:
  """One game: a dialogue per seat that a role plays."""

  def __init__(self, env, task, seats, seed, samplers, number, group, sample, limit, message,
               max_turns):
    self.env, self.seats, self.number, self._seed = env, seats, number, seed
    self._limit, self._message, self.left = limit, message, max_turns
    self.returns, self.status, self.info = [0.0] * len(seats), "", {}
    self.dialogues = {s: dialogue.Dialogue(samplers[role], task, sample=sample, group=group)
                      for s, role in enumerate(seats) if not callable(role)}
    self._try(self._start, task)

  def _start(self, task):
    self.state, self._observation = self.env.reset(task, self._seed)

  def _try(self, function, *args):
    try:
      function(*args)
    except config.ConfigError:
      raise
    except Exception as e:
      self.status = types.ERROR
      self.info["error"] = f"{type(e).__name__}: {e}"[:500]

  @property
  def seat(self):
    return self.env.seat(self.state)

  def next_role(self) -> str:
    """Plays the scripted seats, then shows the seat to move its observation; its role, or ""."""
    while not self.status:
      player = self.seats[self.seat]
      if not callable(player):
        break
      self._try(self._scripted, player)
    if self.status:
      return ""
    speaker = self.dialogues[self.seat]
    speaker.read(self._observation, limit=self._limit, message=self._message)
    if speaker.status == types.ERROR:
      self.status, self.info["error"] = types.ERROR, speaker.info["error"]
    elif speaker.status or not speaker.left["response"] or not self.left:
      self.status = types.LENGTH
    return "" if self.status else player

  def _scripted(self, player):
    generator = rng.host(self._seed, "scripted", self.left)
    self._move(player(self.env, self.state, generator))

  def step(self, text):
    self._try(self._move, text)

  def _move(self, text):
    self.left -= 1
    self.state, self._observation, done, info = self.env.step(self.state, text)
    for seat, reward in enumerate(info.get("reward", ())):
      self.returns[seat] += float(reward)
    self.info.update({k: v for k, v in info.items() if k != "reward"})
    if done:
      self.status = types.STOP
    elif self.left <= 0:
      self.status = types.LENGTH

  def episodes(self):
    for seat, d in self.dialogues.items():
      d.end(self.status or types.LENGTH, **self.info)
      e = d.episode(role=self.seats[seat], seat=seat, game=self.env.name,
                    **{"return": self.returns[seat]})
      yield pairs.with_columns(e, seat_B=seat, game_B=self.number)
