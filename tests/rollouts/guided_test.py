"""Second tries with a hint: who gets them, under which prompt they are kept, what is counted."""

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.config import ConfigError
from rljax.data import collate, select
from rljax.rewards import run, verify
from rljax.rewards import text as text_rewards
from rljax.rollouts import guided, single_turn
from rljax.train import build
from tests.rollouts import fake
from tests.train import loop_test

KEY = jax.random.key(0)


def task(name, hint="", prompt="", answer="7"):
  return types.Task(name, prompt or f"{name}:", answer=answer, info={"hint": hint},
                    verifier="rljax.rewards.verify:exact")


TASKS = [task("easy", "H:1;"), task("hard", "H:2;"), task("dark"), task("mixed", "H:3;")]


def reply(context, seed):
  """Easy: all right; hard: only with its hint, and then by odd samples; dark: never."""
  if context.startswith("easy") or (context.startswith("H:2;hard") and seed[1] % 2):
    return "7"
  return "7" if context.startswith("mixed") and seed[1] == 0 else "no"


def roll(tasks=TASKS, said=reply, size=3, **kwargs):
  sampler = fake.Sampler(lambda c, s: said(c, s), response=5)
  sampler.generate = lambda *a, real=sampler.generate, **k: real(*a, max_tokens=5, **k)
  return guided.guided({"policy": sampler}, tasks, KEY, grade=verify.task_verifier,
                       group_size=size, **kwargs), sampler


def marks(episodes, name="guided_B"):
  return [int(e.info["columns"][name]) for e in episodes]


def prompts(episodes):
  return [e.turns[0].text for e in episodes]


def test_only_failed_groups_with_a_hint_are_sampled_again():
  episodes, sampler = roll()
  assert [len(c[0]) for c in sampler.calls] == [12, 3]
  assert sampler.calls[0][2] != sampler.calls[1][2]  # another key
  assert marks(episodes) == [0] * 3 + [1] * 3 + [0] * 6
  assert [e.info["guided"] for e in episodes] == [bool(m) for m in marks(episodes)]
  assert [e.group for e in episodes] == [g for g in range(4) for _ in range(3)]
  assert [e.response for e in episodes[3:6]] == ["no", "7", "no"]  # the guided ones alone
  assert all(e.task is t for t in TASKS for e in episodes[3 * TASKS.index(t):][:3])


def test_guided_answers_stand_under_the_plain_prompt_with_the_samplers_logp():
  episodes, sampler = roll()
  assert prompts(episodes[3:6]) == ["hard:"] * 3
  np.testing.assert_array_equal(episodes[4].turns[0].tokens, sampler.tokenizer.render("hard:"))
  np.testing.assert_array_equal(episodes[4].turns[1].logp, [-1, -2])
  assert sampler.tokenizer.decode(sampler.calls[1][0][0]) == "H:2;hard:"
  batch = collate.collate(episodes, shapes=collate.Shapes(12, 30, 5))
  first = [int(p) for p in batch.inputs["action_pos_BT"][[0, 3], 0]]
  assert first == [len("easy:") - 1, len("hard:") - 1] and batch.extras["guided_B"].sum() == 3


def test_the_hint_may_stay_in_the_prompt():
  episodes, _ = roll(keep_hint=True)
  assert prompts(episodes[3:6]) == ["H:2;hard:"] * 3 and marks(episodes) == [0] * 12
  assert [e.info["guided"] for e in episodes[3:6]] == [True] * 3
  assert episodes[3].task.prompt == "hard:"


def test_always_and_never():
  episodes, sampler = roll(when="always")
  assert [len(c[0]) for c in sampler.calls] == [3, 9]  # the task without a hint, and all others
  assert marks(episodes) == [1] * 6 + [0] * 3 + [1] * 3
  episodes, sampler = roll(when="never")
  assert marks(episodes) == [0] * 12 and len(sampler.calls) == 1
  plain = single_turn.single_turn({"policy": sampler}, TASKS, KEY, group_size=3)
  assert [e.response for e in episodes] == [e.response for e in plain]


def test_mixin_keeps_the_plain_answer_where_the_guided_one_is_wrong():
  episodes, _ = roll(mixin=True)
  assert marks(episodes[3:6]) == [0, 1, 0] and episodes[4].response == "7"
  assert [e.info["guided"] for e in episodes[3:6]] == [False, True, False]


def test_a_hint_that_does_not_fit_is_not_used_and_told():
  episodes, sampler = roll([task("hard", "H:2;" * 60)], said=lambda c, s: "no")
  assert len(sampler.calls) == 1 and marks(episodes) == [0] * 3
  assert all(e.info["hint_too_long"] and not e.info["guided"] for e in episodes)
  assert "hint_too_long" not in roll()[0][0].info


def test_an_answer_that_cannot_be_scored_is_not_right():
  unscored = [types.Task("hard", "hard:", answer=None, info={"hint": "H:2;"},
                         verifier="rljax.rewards.verify:exact")]
  assert marks(roll(unscored)[0]) == [1] * 3


def test_nothing_to_guide_and_refusals():
  assert len(roll([TASKS[0]])[1].calls) == 1
  assert len(roll([])[0]) == 0
  for kwargs in ({"when": "sometimes"}, {"when": "always", "mixin": True}):
    with pytest.raises(ConfigError, match="guided: when="):
      roll(**kwargs)


def test_groups_all_right_or_all_wrong_after_guidance_are_dropped():
  ctx = run.Context(step=0, seed=0, tokenizer=None)
  rewards = {"correct": verify.task_verifier}
  for said, left in ((reply, [1, 3]), (lambda c, s: "7" if c.startswith("H") else "no", [])):
    episodes, _ = run.score_all(roll(said=said)[0], rewards, {}, ctx)
    kept = select.drop_zero_variance(episodes)
    assert sorted({e.group for e in kept}) == left


def test_guided_answers_that_speak_of_the_hint_are_kept_out_and_counted():
  said = lambda c, s: "no" if c.startswith("hard") else {0: "7", 1: "Hint 7", 2: "x"}[s[1]]
  episodes, _ = roll([task("hard", "H:2;"), task("easy")], said=said)
  ctx = run.Context(step=0, seed=0, tokenizer=None)
  scored, faults = run.score_all(episodes, {
      "correct": verify.task_verifier, "silent": text_rewards.silent}, {}, ctx)
  values = [e.scores["silent"] for e in scored]
  np.testing.assert_array_equal(values, [0, np.nan, 0, 0, 0, 0])  # a plain answer may say it
  assert faults["hint_mentioned"] == 1
  assert collate.collate(scored, shapes=collate.Shapes(6, 30, 9)).valid_B.tolist() == [
      1, 0, 1, 1, 1, 1]


def test_with_a_model_both_log_probabilities_are_of_the_same_tokens():
  """The sampler's are those under the hinted prompt, the trainer's those under the plain one."""
  fn = config_lib.fn
  run_ = build.build(loop_test.load(
      limits__prompt=8, updates__policy__minibatches=1, updates__policy__advantage=fn(
          "rljax.advantages:chain", steps=(fn("rljax.advantages:group_norm"), fn(
              "rljax.objectives.off_policy:shaping_scale"))),
      updates__policy__objective=fn("rljax.objectives.off_policy:guide")))
  run_.roles.init()
  tasks = [task("a", "=12=", "3+4=", answer="none"), task("b", "=5=", "13+4=", answer="none")]
  episodes = guided.guided(run_.samplers, tasks, KEY, grade=verify.task_verifier, group_size=8)
  assert marks(episodes) == [1] * 16
  update = run_.updates["policy"]
  batch = collate.collate(episodes, shapes=update.shapes)
  params = run_.roles.params("policy")
  ready = jax.device_get(update.prepare(params, None, batch, None)) if not update.ref else (
      jax.device_get(update.prepare(params, run_.roles.params(update.ref), batch, None)))
  render = run_.tokenizer.render
  for hinted, found in ((True, ready.behav_logp_BT), (False, ready.old_logp_BT)):
    prefixes = [render(e.task.info["hint"] + e.task.prompt if hinted else e.task.prompt)
                for e in episodes]
    scored = run_.scorer.score("policy", prefixes, [e.turns[1].tokens for e in episodes])
    for b, (logp, _) in enumerate(scored):
      np.testing.assert_allclose(found[b, :len(logp)], logp, atol=1e-4)
  gap = np.abs(ready.behav_logp_BT - ready.old_logp_BT).max()
  assert gap > 1e-3 and ready.extras["gamma_B"][0] > 0
