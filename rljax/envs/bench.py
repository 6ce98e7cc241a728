"""How fast the environments answer on this machine: `python -m rljax.envs.bench`."""

import argparse
import time
from collections.abc import Callable

import numpy as np

from rljax import types
from rljax.envs import game_tree, games, python_exec, retrieval


def rate(work: Callable[[int], object], seconds: float) -> float:
  """Calls per second of work(0), work(1), ..."""
  began, n = time.perf_counter(), 0
  while time.perf_counter() - began < seconds:
    work(n)
    n += 1
  return n / (time.perf_counter() - began)


def passages(count: int, *, length: int = 80, vocabulary: int = 50_000) -> list[dict]:
  """Passages of words with a heavy-tailed frequency, as of natural text."""
  generator = np.random.default_rng(0)
  words = np.floor(vocabulary * generator.random((count, length)) ** 4).astype(int)
  return [{"id": str(i), "title": f"w{row[0]}", "text": " ".join(f"w{w}" for w in row)}
          for i, row in enumerate(words)]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--passages", type=int, default=100_000)
  parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
  args = parser.parse_args()
  corpus = passages(args.passages)
  began = time.perf_counter()
  index = retrieval.bm25_index(corpus)
  print(f"BM25: {len(corpus)} passages indexed in {time.perf_counter() - began:.1f} s")
  query = lambda n: " ".join(corpus[n * 7919 % len(corpus)]["text"].split()[:8])
  print(f"BM25: {rate(lambda n: index.search(query(n), 3), args.seconds):.0f} queries/s")
  tool, state = python_exec.python(), []
  state.append(tool.start(None, 0))

  def cell(n):
    state[0] = tool.call(state[0][:1] if n % 8 == 0 else state[0], f"x = {n}; x * x")[0]
  print(f"Python: {rate(cell, args.seconds):.0f} cells/s, a new session every eighth")
  env, task = games.play(name="tictactoe"), types.Task("t", "")

  def game(n):
    position, _ = env.reset(task, n)
    generator, done = np.random.default_rng(n), False
    while not done:
      position, _, done, _ = env.step(position, games.uniform(env, position, generator))
  print(f"TicTacToe: {rate(game, args.seconds):.0f} games/s")
  uniform = (game_tree.uniform, game_tree.uniform)
  solve = lambda n: game_tree.nash_conv(games.Leduc(), uniform)
  print(f"Leduc: {rate(solve, args.seconds):.1f} NashConv/s")


if __name__ == "__main__":
  main()
