"""PAR: a reward-model score becomes the probability of beating a reference response.

https://arxiv.org/abs/2502.18770 (github.com/PorUna-byte/PAR). Here: texts that should hold three
pairs of letters. The proxy is a Bradley-Terry model of 2,000 pairs of the base's own texts, 15 % of
them marked the wrong way round, by an annotator who also likes exclamation marks; gold is the rule.

  rljax-reproduce par
  rljax-train --config configs/papers/par.py:vanilla --workdir runs/par-vanilla
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "PAR: preference as reward", "category": "reward-model",
         "model": "google/gemma-2-2b"}
SEEDS = 3

GOLD = fn("experiments/par.py:gold")
KL = fn("rljax.advantages:kl_reward", coef=0.005)


def texts(split, size, seed=0):
  return fn("experiments/par.py:texts", split=split, size=size, seed=seed)


def shape(name, **knobs):
  return {"memories.shaped.shape": fn(f"rljax.rewards.shapes:{name}", **knobs)}


def chain(*steps):
  return fn("rljax.advantages:chain", steps=(KL, *steps))


def get_config():
  c = recipes.grpo()
  c.name = "PAR"
  c.steps = 200
  c.tokenizer = fn("rljax.data.text:char", alphabet="abcdefgh!:")
  c.tasks, c.evals.test = texts("train", 256), texts("test", 100)
  c.limits.prompt, c.limits.response = 7, 32
  c.prompts, c.rollout.group_size = 16, 8
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", tasks=texts("train", 20000), noise=0.0,
                           skill=texts("test", 300), steps=2500, rows=64, at_least=0.05,
                           at_most=0.5, limits={"prompt": 7, "response": 32})
  c.roles.ref = recipes.role(init="policy", train=False)
  c.roles.reward_model = recipes.role(
      head=fn("rljax.models.heads:head"), train=False, init=fn(
          "rljax.train.base:scorer", tasks=texts("train", 2000, 1), skill=texts("test", 300, 1),
          rollout=fn("rljax.rollouts.single_turn:compared", noise=0.15,
                     prefer=fn("experiments/par.py:annotator")),
          steps=300, rows=32, at_least=0.6, init="policy"))
  c.rewards, c.reward_weights = {"gold": GOLD}, {"gold": 0.0}
  c.reward_deadline = 600.0  # models, on a machine that may be busy
  c.memories.shaped = fn("rljax.data.memory:shaped", reward=fn("rljax.rewards.model:score"),
                         shape=fn("rljax.rewards.shapes:bounded"), references=10)
  c.updates.policy = recipes.update(
      advantage=chain(fn("rljax.advantages:leave_one_out")),
      objective=fn("rljax.objectives.pg:rloo"),
      optimizer=fn("rljax.optim:adamw", lr=5e-4, warmup=10))
  c.eval.rollout = fn("rljax.rollouts.single_turn:sides")
  c.eval.verifier, c.eval.score = GOLD, "gold"
  c.eval.measure = fn("rljax.evals.scores:measure", score="gold", opponent="ref")
  c.eval.samples, c.eval.every = 4, 20
  c.checkpoint.every, c.episodes_max_bytes = 100, 20_000_000
  return c


_CRITIC = recipes.ppo()  # its returns are without the KL: that of its own logits is nobody's
_PPO = {
    "roles.critic": _CRITIC.roles.critic, "updates.critic": _CRITIC.updates.critic,
    "updates.policy.advantage": chain(fn("rljax.advantages:gae")),
    "updates.policy.objective": fn("rljax.objectives.pg:ppo"), "updates.policy.value": "critic",
}
ARMS = {
    "par3": {"memories.shaped.shape.slope": 3.0},
    **{name: shape(name) for name in ("vanilla", "clip", "min_max")},
    "lsc": shape("log_sigmoid"), "uncentred": shape("bounded", centred=False),
    "ppo_centred": {**_PPO, **shape("centred")},
    "ppo_mean_std": {**_PPO, **shape("mean_std")},
    "ppo": _PPO,
    "grpo": {"updates.policy.advantage": chain(fn("rljax.advantages:group_norm"))},
}
QUICK = {"steps": 60, "eval.samples": 2}
RUNLOCAL = {"memories.shaped.reward": GOLD}  # a new reward model scores everything alike
_PROMPTS = fn("rljax.data.comparisons:comparisons", path="")
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": _PROMPTS, "evals.test": _PROMPTS,
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "roles.reward_model.init": fn("rljax.models.hf:params", path=""),
    "rewards.gold": fn("rljax.rewards.length:linear", per_token=0.01, start=300),
    "reward_weights.gold": 1.0, "eval.verifier": fn("rljax.rewards.model:score"),
    "reward_deadline": 3600.0, "prompts": 40, "rollout.group_size": 5, "limits.prompt": 512,
    "limits.response": 512, "limits.on_long_prompt": "skip", "updates.policy.accum": 5,
    "sampling.temperature": 0.9, "sampling.top_p": 0.9,
    "updates.policy.optimizer.lr": 3e-7,
}

WINS, TRUE, PROXY = "eval/test/win_rate", "eval/test/score", "reward/proxy"
CLAIMS = [
    dict(says="vanilla: the win rate against the base peaks and falls", metric=WINS, arm="vanilla",
         at="keep", relation="<", than=0.9, paper=".29 after one epoch"),
    dict(says="PAR keeps it", metric=WINS, at="keep", relation=">", than=0.95,
         paper=".63, and stays good after two epochs"),
    dict(says="PAR ends with more gold than vanilla", metric=TRUE, relation=">", than="vanilla",
         paper=".63 against .29"),
    dict(says="and than the sigmoid without a centre", metric=TRUE, relation=">", than="uncentred",
         paper=".63 against .59"),
    *(dict(says=f"{arm}: the proxy rises", kind="mechanism", metric=PROXY, arm=arm, at="shift:10",
           relation=">", than=0.0) for arm in ("full", *ARMS) if arm not in ("ppo", "grpo")),
]
EXACT = tuple(f"tests/reproduce/par_test.py::test_{test}" for test in (
    "centring_vanishes_under_any_group_mean", "mean_std_vanishes_under_the_group_std"))
UNTESTED = ("WARM, ODIN and AlpacaEval need a 2B model, its reward models and a judge.",)
PLOT = (WINS, TRUE, PROXY, "shaped/mean", "kl/ref")
