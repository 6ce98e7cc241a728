"""Values, adapters and routers end to end: what a recipe says reaches the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import recipes
from rljax.config import ConfigError, fn
from rljax.models import tree
from rljax.train import build, distributed, loop
from tests.train import loop_test


def tiny(recipe=None, **changes):
  """The tiny run with another recipe's roles and updates."""
  c = loop_test.load()
  c.steps, c.eval.every, c.evals = 2, 0, {}
  c.rewards = {"even": c.rewards.even}
  del c.roles["teacher"]
  if recipe is not None:
    model = c.roles.policy.model
    c.roles, c.updates = recipe.roles, recipe.updates
    c.roles.policy.model = model
  with c.unlocked():
    for key, value in changes.items():
      node = c
      *path, last = key.split("__")
      for part in path:
        node = node[part]
      node[last] = value
  return c


def shared_head():
  c = recipes.grpo()
  c.roles.policy.head = fn("rljax.models.heads:head")
  c.updates.policy = recipes.update(
      advantage=fn("rljax.advantages:gae"), objective=fn("rljax.objectives.pg:ppo", value_coef=0.5))
  return c


def run(tmp_path, config):
  return loop.train(config, str(tmp_path / "run"), quiet=True), loop_test.metrics(tmp_path / "run")


@pytest.mark.slow
def test_ppo_with_a_critic_of_its_own(tmp_path):
  """The critic fits the returns, which are all 1."""
  config = tiny(recipes.ppo(), steps=12, updates__critic__optimizer__lr=0.03,
                rewards={"one": fn("tests/train/tiny_rewards.py:one")})
  states, metrics = run(tmp_path, config)
  errors = [m["critic/value/error"] for m in metrics]
  assert 0.8 < errors[0] <= 1.0 and errors[-1] < 0.2, errors  # lambda < 1: less than 1 early on
  assert "critic/policy/entropy" not in metrics[0] and "policy/policy/entropy" in metrics[0]
  assert set(states) == {"policy", "critic"}
  assert np.abs(states["critic"].params["value"]["out"]).max() > 1e-3


def test_ppo_with_a_head_on_the_policy(tmp_path):
  states, metrics = run(tmp_path, tiny(shared_head()))
  assert np.abs(states["policy"].params["value"]["out"]).max() > 0
  assert metrics[1]["value/mean"] != metrics[0]["value/mean"] == 0.0  # the head starts at zero


def test_values_are_those_of_before_the_first_update():
  """Prepared from weights that have not moved: one batch, critic first or last."""
  r = build.build(tiny(recipes.ppo()))
  r.roles.init()
  params = r.roles.params("critic")
  state = loop.Loop.__new__(loop.Loop)
  state.hosts = distributed.ALONE
  state.r, state.config = r, r.config
  episodes = r.rollout(r.samplers, [r.tasks[i] for i in range(4)], jax.random.key(0))
  critic = r.roles.specs["critic"].policy
  for update in r.updates.values():
    batch = state._prepare(update, episodes)
    want = critic.stats(params, batch).value_BT
    np.testing.assert_allclose(batch.value_BT, want, atol=1e-6)
    assert "return_BT" in batch.extras


def test_refusals():
  needy = tiny(shared_head(), roles__policy__head=None)
  with pytest.raises(ConfigError, match="needs values, and roles.policy has no head"):
    build.build(needy)
  with pytest.raises(ConfigError, match="no head with one output"):
    build.build(tiny(shared_head(), roles__policy__head=fn("rljax.models.heads:head", outputs=2)))
  with pytest.raises(ConfigError, match="there is no role 'critique'"):
    build.build(tiny(shared_head(), updates__policy__value="critique"))
  with pytest.raises(ConfigError, match="adapters need `shares`"):
    build.build(tiny(shared_head(), roles__policy__lora=fn("rljax.models.lora:lora")))
  with pytest.raises(ConfigError, match="freeze pattern 'layers/z' matches no parameter"):
    build.build(tiny(updates__policy__optimizer__freeze=("layers/z",)))
  with pytest.raises(ConfigError, match="layout 'tp'; one of single, fsdp"):
    build.build(tiny(layout__train="tp"))


def adapted(rank=4):
  """policy and rival adapt one base, which is also the reference."""
  c = loop_test.load()
  adapter = fn("rljax.models.lora:lora", rank=rank, targets=("q", "down"))
  roles = {"base": recipes.role(train=False), "policy": recipes.role(
      model=c.roles.policy.model, shares="base", lora=adapter),
      "rival": recipes.role(shares="base", lora=adapter)}
  out = tiny()
  with out.unlocked():
    out.roles = roles
  out.updates.policy.ref, out.updates.policy.minibatches = "base", 1
  return out


@pytest.mark.slow
def test_adapters_learn_over_a_base_that_stays(tmp_path):
  config = adapted()
  r = build.build(config)
  r.roles.init()
  before = jax.tree.map(np.asarray, r.roles.states["base"])
  shared = [a is b for a, b in zip(jax.tree.leaves(r.roles.base("policy")),
                                   jax.tree.leaves(r.roles.base("rival")))]
  assert all(shared)
  states, metrics = run(tmp_path, config)
  jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, states["base"]))
  own = tree.flatten(states["policy"].params)
  assert own and all("_lora_" in path for path in own)
  assert all(np.abs(x).max() > 0 for path, x in own.items() if path.endswith("_b"))
  assert metrics[0]["kl/ref"] == 0.0 < metrics[1]["kl/ref"]  # B starts at zero
  rival = tree.flatten(states["rival"])
  assert all(np.abs(x).max() == 0 for path, x in rival.items() if path.endswith("_b"))


def test_frozen_parameters_stay_and_have_no_state(tmp_path):
  config = tiny(updates__policy__optimizer__freeze=("embed", "layers/norm*"))
  r = build.build(config)
  r.roles.init()
  before = jax.tree.map(np.asarray, r.roles.params("policy"))
  moments = sum(x.size for x in jax.tree.leaves(r.roles.states["policy"].opt_state))
  assert moments < 2 * sum(x.size for x in jax.tree.leaves(before["layers"])) + 100
  states, _ = run(tmp_path, config)
  after = tree.flatten(states["policy"].params)
  for path, x in tree.flatten(before).items():
    frozen = path == "embed" or path.startswith("layers/norm")
    assert np.array_equal(x, after[path]) == frozen, path


@pytest.mark.slow
def test_the_router_is_balanced_by_its_weight(tmp_path):
  experts = dict(roles__policy__model__experts=4, roles__policy__model__experts_per_token=1,
                 updates__policy__objective__kl_coef=0.0)
  params, said = [], []
  for i, weight in enumerate((0.0, 10.0)):
    states, metrics = run(tmp_path / str(i), tiny(**experts, updates__policy__router=weight))
    params.append(states["policy"].params["layers"]["router"])
    said.append("router/balance" in metrics[0])
  assert jnp.abs(params[0] - params[1]).max() > 1e-4
  assert said == [False, True]


@pytest.mark.slow
def test_packed_rows_train_the_same(tmp_path):
  """Few rows of the model hold what many held; too few rows are a counted fall-back."""
  shapes = {(0, 0): None, (10, 0): None, (4, 24): None, (1, 0): 2}
  outs = [run(tmp_path / f"{rows}-{length}", tiny(
      limits__prompt=10, updates__policy__pack=rows, updates__policy__pack_length=length,
      updates__policy__minibatches=1)) for rows, length in shapes]
  for (states, metrics), ((rows, length), fault) in zip(outs, shapes.items()):
    for path, x in tree.flatten(states["policy"].params).items():
      want = tree.flatten(outs[0][0]["policy"].params)[path]
      np.testing.assert_allclose(x, want, atol=2e-3, err_msg=path)
    assert metrics[0]["loss/total"] == pytest.approx(outs[0][1][0]["loss/total"], abs=1e-5)
    result = loop.read_result(str(tmp_path / f"{rows}-{length}" / "run"))
    assert result["faults"].get("not_packed") == fault
