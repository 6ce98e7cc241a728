"""Plans: counted by hand, in agreement with what runs here, and refusals in one sentence."""

import json

import jax
import jax.numpy as jnp
import pytest

from rljax import main, plan, plan_flops
from rljax.config import ConfigError, fn
from tests.train import loop_test

TOY = dict(layers=2, width=256, heads=4, mlp=512)


def toy():
  c = loop_test.load()
  c.roles.policy.model = fn("rljax.models.policy:decoder", **TOY)
  c.limits.prompt, c.limits.response = 64, 65
  c.prompts, c.rollout.group_size, c.sampling.slots = 8, 4, 32
  c.updates.policy.minibatches = 1
  return c


# --- counting ---


def test_products_are_counted_by_hand():
  a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
  assert plan_flops.count(lambda a, b: a @ b, a, b) == 2 * 3 * 5 * 7
  assert plan_flops.count(lambda a: jnp.sin(a) + a, a) == 0


def test_loops_count_their_length_and_branches_their_dearest():
  a = jnp.ones((4, 4))
  one = 2 * 4**3
  scan = lambda a: jax.lax.scan(lambda c, _: (c @ a, None), a, None, length=6)[0]
  assert plan_flops.count(scan, a) == 6 * one
  cond = lambda a: jax.lax.cond(a[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, a)
  assert plan_flops.count(cond, a) == 2 * one
  assert plan_flops.count(jax.jit(lambda a: a @ a), a) == one


def test_recomputation_counts_again():
  a = jnp.ones((4, 4))
  loss = lambda f: jax.grad(lambda x: jnp.sum(jnp.sin(f(x @ x))))
  plain = plan_flops.count(loss(lambda y: y @ y), a)
  again = plan_flops.count(loss(jax.checkpoint(lambda y: jnp.sin(y @ y) @ y)), a)
  assert plain == 6 * 2 * 4**3 and again > plain + 2 * 4**3


def test_ragged_products_meet_one_matrix_per_row():
  x, w, n = jnp.ones((6, 4)), jnp.ones((3, 4, 5)), jnp.asarray([1, 2, 3])
  assert plan_flops.count(jax.lax.ragged_dot, x, w, n) == 2 * 6 * 4 * 5


# --- plans ---


@pytest.fixture(scope="module")
def plans():
  pytest.importorskip("libtpu", reason="libtpu is the compiler")
  devices, chip = plan.tpu_devices("v5e:2x2")
  return {"tpu": plan.plan(toy(), devices[:1], chip, tries=0),
          "cpu": plan.plan(toy(), *plan.local_devices("cpu"), tries=1)}


@pytest.mark.slow
def test_a_plan_says_what_it_takes(plans):
  result = json.loads(json.dumps(plans["tpu"]))
  assert list(result["steps"]) == ["prefill", "decode", "score", "train"] and result["fits"]
  for step in result["steps"].values():
    memory = step["memory_gib"]
    assert memory["peak"] >= result["resident_gib"] > 0
    assert step["flops"] > 0 and step["bound"] in ("compute", "memory")
  weights = result["parameters"] * 4 / plan.GIB
  held = result["steps"]["train"]["memory_gib"]["state"]
  assert held == pytest.approx(3 * weights, rel=0.01)  # parameters and two moments
  table = plan.table(result)
  assert all(name in table for name in ("prefill", "decode", "score", "train"))


@pytest.mark.slow
def test_the_largest_batch_is_one_that_was_compiled(plans):
  largest = plans["cpu"]["steps"]["train"]["largest"]
  assert largest["batch"] > plans["cpu"]["steps"]["train"]["batch"]
  assert largest["compilations"] == 1
  if largest["fails_at"] is not None:
    assert largest["fails_at"] > largest["batch"]


@pytest.mark.slow
def test_it_agrees_with_the_compiler_that_runs_here(plans):
  """Weights and optimizer state to 1 %; the peak of the train step within a factor of 2.5 (a TPU
  pads layouts to tiles, and fuses more: it needs less)."""
  tpu, cpu = (plans[k]["steps"]["train"] for k in ("tpu", "cpu"))
  assert tpu["memory_gib"]["state"] == pytest.approx(cpu["memory_gib"]["state"], rel=0.01)
  assert tpu["flops"] == pytest.approx(cpu["flops"], rel=0.01)
  assert 0.4 < tpu["memory_gib"]["peak"] / cpu["memory_gib"]["peak"] < 2.5


def test_what_does_not_fit_is_said(monkeypatch):
  """A chip of next to no memory: nothing fits, and no batch is found."""
  devices, chip = plan.local_devices("cpu")
  small = plan.Chip(1e6, chip.flops, chip.bandwidth)
  monkeypatch.setattr(plan, "_step", lambda make, size, *_: {
      "batch": size, "memory_gib": {"peak": 1e-2 * size, "state": 5e-3}, "fits": False})
  got = plan._largest(None, plan._step(None, 64), small, 1, 0, 8, 6)
  assert got["batch"] == 0 and got["fails_at"] == 8
  monkeypatch.setattr(plan, "_step", lambda make, size, *_: {
      "batch": size, "memory_gib": {"peak": 1e-5 * size, "state": 0.0}, "fits": size <= 88})
  got = plan._largest(None, plan._step(None, 16), small, 1, 0, 8, 9)
  assert got["batch"] == 88 and got["fails_at"] == 96


@pytest.mark.parametrize("topology", ["v9:2x2", "v5e", "v5e:2", "v5p:3x5x7", "v5e:100x100"])
def test_a_topology_that_does_not_exist(topology):
  pytest.importorskip("libtpu", reason="libtpu is the compiler")
  with pytest.raises(ConfigError, match="topology"):
    plan.tpu_devices(topology)


def test_the_command(tmp_path, capsys):
  args = ["--config", loop_test.TINY, "--device", "cpu", "--tries", "0"]
  assert main.plan([*args, "--json", str(tmp_path / "p.json")]) == 0
  assert "train" in capsys.readouterr().out
  assert json.loads((tmp_path / "p.json").read_text())["topology"] == "cpu"
  assert main.plan([*args, "--update", "nothing"]) == 2
  assert "there is no update 'nothing'; there is: policy" in capsys.readouterr().err
  assert main.plan(["--config", loop_test.TINY]) == 2
  assert "--topology says which TPU slice" in capsys.readouterr().err
  assert main.plan([*args, "--layout", "wide"]) == 2
  assert "layout 'wide'; one of single" in capsys.readouterr().err
