"""ExpRD, ExpAdaRD, SelfRS, ExploRS: rewards designed by linear programmes, or learned by oneself.

https://arxiv.org/abs/2402.07019 (ExpAdaRD), https://openreview.net/forum?id=rgVqH3gjeA (ExploRS).
Here: a line with a key (an expert designs the reward) and chains with a far goal and a distractor
(the learner shapes its own). Each run holds five tabular learners; evaluations are exact.

  rljax-reproduce reward-design-thesis
  rljax-train --config configs/papers/reward-design-thesis.py:original --workdir runs/original
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "Reward design for reinforcement learning agents", "category": "classic-RL",
         "model": "tabular"}
SEEDS = 3
_CODE = "experiments/reward-design-thesis.py:"


def get_config():
  c = recipes.classic()
  c.name = "Reward design"
  c.seeds = 5
  c.chunk, c.steps = 50, 200  # 100 episodes per step, 20,000 in all
  c.env = fn("rljax.classic.worlds:line_key")
  c.agent = fn("rljax.classic.actor_critic:policy_gradient", episodes=2, batch=5, gamma=0.95,
               policy=fn("rljax.classic.nets:table"), optimizer=fn("rljax.optim:sgd", lr=0.02),
               shaping=fn(_CODE + "adaptive"))
  c.evals.exact = fn("rljax.classic.measure:exact", gamma=0.95)
  c.eval.every, c.checkpoint.every = 1, 100
  return c


def chain(shaping, far=False):
  """The learner of the chains: the goal 10 cells away, or 16 with a distractor the other way."""
  env = dict(right=16, distractor=15) if far else dict(right=10)
  return {
      "env": fn("rljax.classic.worlds:chain", **env), "agent.gamma": 0.99,
      "agent.optimizer.lr": 0.1, "agent.shaping": shaping,  # of the code of 2022
      "evals.exact": fn("rljax.classic.measure:exact"), **({} if far else {"steps": 80})}


_OWN = {"bonus": fn(_CODE + "self_reward", learned=False, bonus=1.0),
        "self": fn(_CODE + "self_reward"), "explore": fn(_CODE + "self_reward", bonus=1.0)}
ARMS = {
    "adversarial": {"agent.policy.start": fn(_CODE + "worst_actions")},
    "original": {"agent.shaping": None},
    "invariance": {"agent.shaping": fn(_CODE + "designed", informative=False)},
    "exprd": {"agent.shaping": fn(_CODE + "designed")},
    "exprd_free": {"agent.shaping": fn(_CODE + "designed", structured=False)},
    "chain_original": chain(None),
    **{f"chain_{name}": chain(leaf) for name, leaf in _OWN.items()},
    "far_original": chain(None, far=True),
    **{f"far_{name}": chain(leaf, far=True) for name, leaf in _OWN.items()},
}
QUICK = {"seeds": 2}
SCALE = {"agent.optimizer.lr": 0.01, "steps": 500}  # the released code's rate and 50,000 episodes

SHARE, RETURN = "eval/exact/share", "eval/exact/return"
CLAIMS = [
    dict(says="ExpAdaRD reaches 0.9 of V* within a quarter of the episodes", metric=SHARE,
         at="reach:0.9", relation="<", than=50.5, paper="pilot: 4.9 of 5.09 by then"),
    dict(says="so it does from adversarial beginnings", metric=SHARE, arm="adversarial",
         at="reach:0.9", relation="<", than=50.5, paper="pilot: 4.8 of 5.09 by then"),
    dict(says="the original reward teaches nothing", kind="control", metric=SHARE, arm="original",
         relation="<", than=0.2, paper="pilot: 0.01 of 5.09"),
    dict(says="the constraints alone, on five leaves, teach nothing", kind="control", metric=SHARE,
         arm="invariance", relation="<", than=0.2, paper="pilot: about 0"),
    dict(says="a reward for the learner's policy teaches faster than a fixed one on five leaves",
         metric=SHARE, at="mean", relation=">", than="exprd",
         paper="ExpAdaRD faster than ExpRD"),
    dict(says="a free ExpRD reward reaches 0.9 of V*", metric=SHARE, arm="exprd_free",
         relation=">", than=0.9, paper="pilot: 4.6 of 5.09 at a quarter"),
    *(dict(says=f"{name} reaches the goal, {where}", metric=RETURN, arm=f"{arm}_{way}",
           relation=">", than=0.8, paper=says)
      for arm, where, says in (("chain", "10 cells away", "pilot: 0.93"),
                               ("far", "16 away with a distractor", "pilot: 0.88"))
      for way, name in (("self", "SelfRS"), ("explore", "ExploRS"))),
    *(dict(says=f"the original reward does not lead there, {where}", kind="control", metric=RETURN,
           arm=f"{arm}_original", relation="<", than=0.1, paper=says)
      for arm, where, says in (("chain", "10 cells away", "pilot: 0.04"),
                               ("far", "16 away", "pilot: 0.00"))),
    dict(says="ExploRS gets there no later than SelfRS: area under the curve", metric=RETURN,
         arm="far_explore", at="mean", relation=">", than="far_self",
         paper="pilot: 0.6 after 5,000 episodes, against 8,400"),
    dict(says="so it does on the near chain", metric=RETURN, arm="chain_explore", at="mean",
         relation=">", than="chain_self"),
]
EXACT = ("tests/classic/worlds_test.py::test_the_lines_value_is_known",
         "tests/classic/design_test.py::test_designed_rewards_keep_the_optimal_policies",
         "tests/classic/design_test.py::test_the_adaptive_gain_is_the_papers_double_sum")
UNTESTED = ("The curves of the rooms and of neural learners need runs of their own.",)
PLOT = (SHARE, RETURN)
