"""ReST-MCTS*: a tree search led by process values, and self-training on what it finds.

https://arxiv.org/abs/2406.03816. Here: chains of five operations modulo 5, one step each. Two
iterations: policy and value model of its beginning search; the policy imitates right traces, the
value model learns what partial answers were worth. All arms may generate as many tokens per
problem. Arms without training compare searches.

  rljax-reproduce rest-mcts-star
  rljax-train --config configs/papers/rest-mcts-star.py:rest_em --workdir runs/rest-em
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "ReST-MCTS*: self-training by process reward guided search", "category": "search",
         "model": "mistralai/Mistral-7B-Instruct-v0.2"}
BUDGET = 240  # generated tokens, 8 answers
STEPS = dict(depth=6, stop=(";",), step_tokens=6)
TRAIN, TEST = (fn("experiments/rest-mcts-star.py:problems", split=x) for x in ("train", "test"))
SMALL = dict(width=64, heads=4, activation="relu", scan=False)


def first_value():
  """V_0: it writes chains before it judges them, and judges short ones, too, or it never learns."""
  some = dict(tasks=fn("experiments/rest-mcts-star.py:problems", size=200000, min_steps=1),
              skill=TEST, rows=96, lr=3e-3)
  writes = fn("rljax.train.base:trained", noise=0.0, steps=500, at_least=0.9, at_most=1.0, **some)
  return fn("rljax.train.base:scorer", rollout=fn("experiments/rest-mcts-star.py:labelled"),
            steps=4000, objective=fn("rljax.objectives.value:clipped", clip=None), init=writes,
            at_least=0.9, **some)


def get_config():
  c = recipes.sft()
  c.name, c.steps = "ReST-MCTS*", 60
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-*=;")
  c.tasks, c.evals.test = TRAIN, TEST
  c.limits.prompt, c.limits.response = 12, 31
  c.sampling.prompt_buckets, c.sampling.slots = (12, 42), 256
  c.prompts = 24
  c.rollout = fn("rljax.rollouts.tree:taught", budget=BUDGET, role="start", value="start_value",
                 verify=fn("experiments/rest-mcts-star.py:outcome"),
                 options={**STEPS, "accept": 2.0})
  c.rewards = {"correct": fn("rljax.rewards.verify:task_verifier")}
  c.memories.kept = fn("experiments/rest-mcts-star.py:kept")
  c.roles.policy.model = fn("rljax.models.policy:decoder", layers=2, **SMALL)
  c.roles.policy.init = fn("rljax.train.base:trained", noise=0.0, steps=250, rows=64,
                           tasks=TRAIN, skill=TEST, at_least=0.4, at_most=0.6)
  judge = dict(model=fn("rljax.models.policy:decoder", layers=3, **SMALL),
               head=fn("rljax.models.heads:head"))
  follow = dict(train=False, decay=0.0, every=30)  # what an iteration begins with
  c.roles.start = recipes.role(init="policy", follow="policy", **follow)
  c.roles.value = recipes.role(init=first_value(), **judge)
  c.roles.start_value = recipes.role(init="value", follow="value", **judge, **follow)
  c.updates.policy = recipes.update(objective=fn("rljax.objectives.supervised:sft"),
                                    optimizer=fn("rljax.optim:adamw", lr=3e-4, warmup=5))
  c.updates.policy.speaker, c.updates.policy.rows = "policy", 4 * c.prompts
  c.updates.value = recipes.update(objective=fn("rljax.objectives.reward_model:regression"),
                                   optimizer=fn("rljax.optim:adamw", lr=3e-4, warmup=5))
  c.updates.value.role = c.updates.value.speaker = "value"
  c.updates.value.ref, c.updates.value.rows = "", 12 * c.prompts
  c.eval.greedy, c.eval.measure = True, fn("experiments/rest-mcts-star.py:measure")
  c.checkpoint.every, c.episodes_max_bytes = 30, 20_000_000
  return c


def search(name, value="value", **options):
  return {"steps": 0, "eval.greedy": False, "eval.rollout": fn(
      "rljax.rollouts.searched:searched", search=name, budget=BUDGET, value=value, options=options)}


_SAMPLED = {"rollout": fn("rljax.rollouts.single_turn:single_turn", group_size=8, role="start"),
            "updates.value.every": 0, "updates.policy.speaker": "", "updates.policy.rows": 192}
ARMS = {
    "rest_em": {**_SAMPLED, "select": fn("rljax.data.select:right")},
    "self_rewarding": {
        **_SAMPLED, "select": fn("rljax.data.pairs:best_worst", score="own"),
        "rewards.own": fn("rljax.rewards.confidence:certainty", kind="logp", role="start"),
        "updates.policy.objective": fn("rljax.objectives.preference:dpo", beta=0.1),
        "updates.policy.ref": "start", "updates.policy.optimizer.lr": 1e-4},
    "mcts": search("mcts", **STEPS), "best_of_n": search("best_of_n"), "vote": search("vote", ""),
    "beam": search("beam", width=2, branch=4, **STEPS),
    "sample": {"steps": 0, "eval.greedy": False},
}
QUICK, RUNLOCAL = {"steps": 60}, {"rollout.budget": 36}
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""), "steps": 200,
    "tasks": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "evals.test": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "roles.policy.model": fn("rljax.models.hf:model", path=""), "eval.measure": fn(
        "rljax.evals.pass_at_k:measure"), "memories.kept": None,
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "roles.value.init": fn("rljax.models.hf:params", path=""),
    "roles.value.model": None, "roles.start_value.model": None,
    "rollout.options.depth": 12, "rollout.options.stop": ("\n",), "rollout.budget": 50000,
    "rollout.options.step_tokens": 128, "rollout.verify": fn("rljax.rewards.verify:number"),
    "sampling.prompt_buckets": (512, 2047), "limits.prompt": 512, "limits.response": 1536,
    "limits.on_long_prompt": "skip", "updates.policy.accum": 96, "updates.value.accum": 96,
    **{f"updates.{u}.optimizer": fn("rljax.optim:adamw", lr=3e-6) for u in ("policy", "value")},
}

ACC, FLAWED = "eval/test/pass_at_1", "kept/flawed"
CLAIMS = [
    dict(says="MCTS* solves 2 points more than the best of n with as many tokens", metric=ACC,
         arm="mcts", relation=">", than="best_of_n", margin=0.02, paper="above BoN and ToT"),
    dict(says="and no less than self-consistency", metric=ACC, arm="mcts", relation=">",
         than="vote", margin=-1e-6),
    dict(says="self-training: ReST-MCTS* ends no lower than ReST-EM", metric=ACC, relation=">",
         than="rest_em", margin=-1e-6, paper="better over two iterations, three models"),
    dict(says="ReST-MCTS* gains", metric=ACC, at="gain", relation=">", than=0.0),
    dict(says="ReST-EM gains", metric=ACC, arm="rest_em", at="gain", relation=">", than=0.0),
    dict(says="it keeps fewer wrong steps", metric=FLAWED, relation="<", than="rest_em"),
    dict(says="single samples of the base are right in 40 to 60 %", kind="mechanism", metric=ACC,
         arm="sample", relation="within", than=0.5, margin=0.1),
]
EXACT = ("tests/search/search_test.py::test_process_values_by_hand",
         "tests/reproduce/rest_mcts_star_test.py::test_a_partial_answer_is_worth_what_a_tree_says")
UNTESTED = ("SciBench and MATH need a pretrained model.",)
PLOT = (ACC, "eval/test/tokens", "eval/test/precision", FLAWED, "kept/traces", "sft/nll")
