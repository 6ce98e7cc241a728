"""Who does what, without any process: parts, errors, and what the environment may say."""

import functools
import threading
import time

import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.train import distributed, rollouts
from tests.rewards import make


def test_parts_are_whole_groups_in_order():
  hosts = distributed.Hosts(1, 3)
  assert hosts.parts("aabbccc") == [[0, 1], [2, 3], [4, 5, 6]]
  assert hosts.parts("abab") == [[0, 2], [1, 3], []] or hosts.parts("abab") == [[0, 2], [], [1, 3]]
  assert hosts.parts("ab", whole=True) == [[0, 1], [], []]
  assert hosts.parts("") == [[], [], []]
  for n in range(1, 12):
    parts = hosts.parts(range(n))
    assert sum(parts, []) == list(range(n)) and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_it_is_the_identity():
  hosts = distributed.ALONE
  assert hosts.main and hosts.each("x", lambda: 3) == [3] and hosts.first("x", lambda: 4) == 4
  assert hosts.over("x", "aab", lambda rows: rows) == [([0, 1, 2], [0, 1, 2])]
  assert hosts.over("x", "", lambda rows: rows) == [([], [])]
  with pytest.raises(ZeroDivisionError):
    hosts.each("x", lambda: 1 / 0)


def exchange(monkeypatch, others):
  """This is host 0; the others say these things."""
  def say(data):
    return [data, *others]
  monkeypatch.setattr(distributed, "_exchange", say)
  return distributed.Hosts(0, 1 + len(others))


def said(value=None, problem=None):
  return distributed.pickle.dumps((problem, distributed.pickle.dumps(value)))


def test_what_one_host_raises_all_raise(monkeypatch):
  with pytest.raises(ConfigError, match="^no such file$"):
    exchange(monkeypatch, [said(problem=(True, "no such file"))]).each("x", lambda: 1)
  with pytest.raises(distributed.HostFailed, match="host 2: KeyError"):
    exchange(monkeypatch, [said(2), said(problem=(False, "KeyError: 'a'"))]).each("x", lambda: 1)
  heard = []
  hosts = exchange(monkeypatch, [said(2)])
  inner = distributed._exchange
  monkeypatch.setattr(distributed, "_exchange", lambda data: heard.append(data) or inner(data))
  with pytest.raises(ZeroDivisionError):
    hosts.each("x", lambda: 1 / 0)
  assert heard, "the others were left waiting"
  with pytest.raises(AttributeError):  # what cannot be sent is an error for all, too
    hosts.each("x", lambda: lambda: 0)
  assert len(heard) == 2


class Board:
  """What hosts have said about their phases; `silent`: host 0 is gone."""

  def __init__(self, said, silent=False):
    self.said, self.silent = dict(said), silent

  def key_value_set(self, key, value, *, allow_overwrite):
    assert allow_overwrite
    self.said[key] = value

  def key_value_dir_get(self, folder):
    while self.silent:
      time.sleep(1)
    return [(k, v) for k, v in self.said.items() if k.startswith(folder)]


@pytest.mark.parametrize("others, silent, says", [
    ({1: "1 rollout", 2: "2 x, waiting for the others"}, False,
     "behind all others: host 1 in 'rollout'"),
    ({1: "2 x, waiting for the others", 2: "9 update"}, False,
     "behind all others: host 0 in 'rollout', host 1 in 'x, waiting for the others'"),
    ({1: "2 rollout", 2: "2 rollout"}, False, "all hosts are in 'rollout'"),
    ({1: "1 rollout"}, True, "host 0 does not answer")])
def test_the_watchdog_names_who_is_behind(monkeypatch, capfd, others, silent, says):
  """A phase of 0.4 s where 0.2 are allowed; between phases nothing is counted."""
  ended = threading.Event()
  codes = []

  def leave(code):
    codes.append(code)
    ended.set()
    threading.Event().wait()
  monkeypatch.setattr(distributed.os, "_exit", leave)
  monkeypatch.setattr(distributed, "PATIENCE", 0.1)
  board = Board({f"rljax/phase/{h}": text for h, text in others.items()}, silent)
  hosts = distributed.Hosts(0, 1 + len(others), deadline=0.2, board=board)
  time.sleep(0.5)
  assert not codes
  with hosts.phase("outer"), hosts.phase("rollout"):
    assert ended.wait(10)
  assert codes == [distributed.RESUMABLE]
  assert f"host 0: no progress for 0.2 s in phase 'rollout'; {says}" in capfd.readouterr().err


def test_rewards_are_gathered_and_whole_ones_see_everything(monkeypatch):
  from rljax.rewards import run
  seen = []

  def short(episodes, ctx):
    seen.append(("short", len(episodes)))
    run.count(ctx, "odd", len(episodes))
    return [float(e.group) for e in episodes]

  @types.whole
  def all_of_them(episodes, ctx):
    seen.append(("all", len(episodes)))
    return [float(len(episodes))] * len(episodes)

  episodes = [make.episode("a", group=g) for g in (0, 0, 1, 1, 2, 2)]
  other = ({"short": ([2.0, 2.0], "", "")}, {"odd": 2, "late": 1})
  answers = iter([said(other), said(None)])
  monkeypatch.setattr(distributed, "_exchange", lambda data: [data, next(answers)])
  hosts = distributed.Hosts(0, 2)
  out, faults = run.score_all(
      episodes, {"short": short, "all": functools.partial(all_of_them)}, {},
      run.Context(0, 0, None), over=hosts.over)
  assert seen == [("short", 4), ("all", 6)]
  assert [e.scores["short"] for e in out] == [0, 0, 1, 1, 2, 2]
  assert [e.scores["reward"] for e in out] == [6, 6, 7, 7, 8, 8]
  assert faults == {"odd": 6, "late": 1}


def test_is_whole_looks_into_what_is_bound():
  @types.whole
  def inner(episodes, ctx):
    pass

  def outer(episodes, ctx, *, reward=None, several=()):
    pass
  assert types.is_whole(functools.partial(outer, reward=functools.partial(inner)))
  assert types.is_whole(functools.partial(outer, several={"a": inner}))
  assert not types.is_whole(functools.partial(outer, reward=outer))


def test_a_rollout_with_groups_of_its_own_must_say_so():
  episodes = [make.episode("a", group=0), make.episode("b", group=1)]
  joined = rollouts._joined([([4], episodes[:1]), ([5], [make.episode("c", group=0)])])
  assert [e.group for e in joined] == [4, 5]
  with pytest.raises(ConfigError, match="rljax.types.whole"):
    rollouts._joined([([4], episodes), ([5], [])])


@pytest.mark.parametrize("env", [
    {"COORDINATOR": "a:1"}, {"PROCESSES": "2", "PROCESS": "0"}, {"COORDINATOR": "a:1", "PROCESSES":
     "2", "PROCESS": "2"}, {"COORDINATOR": "a", "PROCESSES": "2", "PROCESS": "0"},
    {"COORDINATOR": "a:1", "PROCESSES": "x", "PROCESS": "0"}])
def test_half_an_environment_is_refused(monkeypatch, env):
  for k in ("COORDINATOR", "PROCESSES", "PROCESS"):
    monkeypatch.setenv(f"RLJAX_{k}", env.get(k, ""))
  with pytest.raises(ConfigError, match="several hosts need RLJAX_COORDINATOR=address:port"):
    distributed.start()


def test_no_environment_is_one_host(monkeypatch):
  for k in ("COORDINATOR", "PROCESSES", "PROCESS"):
    monkeypatch.delenv(f"RLJAX_{k}", raising=False)
  assert distributed.start() is distributed.ALONE


@pytest.mark.parametrize("text", ["0", "-3", "soon", "nan"])
def test_a_deadline_is_a_number_of_seconds(monkeypatch, text):
  monkeypatch.setenv("RLJAX_DEADLINE", text)
  with pytest.raises(ConfigError, match="RLJAX_DEADLINE="):
    distributed._seconds("RLJAX_DEADLINE", 5)
