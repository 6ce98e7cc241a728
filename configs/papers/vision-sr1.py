"""Vision-SR1: a description is rewarded if the policy can answer from it without the image.

https://github.com/zli12321/Vision-SR1. Here: three shapes side by side,
"what colour is the square?", and training questions whose answer is red in 70 % of the cases; the
test is balanced. The base leaves the asked shape out of 40 % of its descriptions.

  rljax-reproduce vision-sr1
  rljax-train --config configs/papers/vision-sr1.py:accuracy --workdir runs/sr1-accuracy
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "Vision-SR1: self-rewarding by decomposition", "category": "vision",
         "model": "Qwen/Qwen2.5-7B"}  # the text half of the paper's Qwen2.5-VL-7B
SEEDS = 3

FORM = r"\[(?P<description>[^\[\]]*)\]\([^()]*\)=(?P<answer>.)"
READ = dict(form=FORM, mark="=", grammar="([123][rgby][sdtc])*", max_tokens=6, longest=10,
            on_long="left", template="[{description}]{question}")
OBJECTS = tuple(color + shape for color in "rgby" for shape in "sdtc")  # each is one token


def scenes(**knobs):
  return fn("experiments/vision-sr1.py:scenes", **knobs)


COLD = fn("rljax.data.planted:mixture", weights=(3, 1), parts=(
    scenes(prior=0.7, omit=0.4, count=4000, seed=1), scenes(blind=True, seed=2)))


def get_config():
  c = recipes.grpo()
  c.name = "Vision-SR1"
  c.steps = 250
  c.tokenizer = fn("rljax.data.text:images", marker="#", patches=9, tokenizer=fn(
      "rljax.data.text:pieces", pieces=(*OBJECTS, *"123rgbysdtc[]()=:#")))
  c.tasks, c.evals.test = scenes(prior=0.7), scenes(split="test", count=300)
  c.evals.reader = scenes(split="test", count=300, blind=True)
  c.limits.prompt, c.limits.response = 11, 14
  c.prompts, c.rollout.group_size, c.sampling.slots = 32, 8, 256
  c.rewards = {"answer": fn("rljax.rewards.reader:answered", mark="="),
               "format": fn("rljax.rewards.reader:formed", form=FORM),
               "blind": fn("rljax.rewards.reader:sufficient", **READ)}
  c.reward_weights = {"answer": 0.9, "format": 0.1, "blind": 1.0}
  c.reward_deadline = 600.0  # it asks a model, on a machine that may be busy
  c.roles.policy.model = fn("rljax.models.vision:vision", images=1, size=(24, 24), patch=(8, 8),
                            tower_width=32, tower_layers=1, width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", noise=0.0, tasks=COLD,
                           skill=scenes(prior=0.7, split="test", count=300), steps=800, rows=64,
                           at_least=0.6, at_most=0.99)
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective.kl_coef = 0.01
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=3e-4, warmup=10)
  c.eval.verifier = fn("rljax.rewards.reader:answered", mark="=")
  c.eval.measure = fn("rljax.evals.shortcut:measure", reader=fn(
      "rljax.rewards.reader:sufficient", role="ref", **READ))
  c.eval.samples, c.eval.every = 1, 50
  c.checkpoint.every, c.episodes_max_bytes = 100, 20_000_000
  return c


def stream(column):
  return fn("rljax.advantages:group_norm", reward=column)


ARMS = {
    "cold": {"steps": 0},
    "accuracy": {"reward_weights.blind": 0.0},
    "multi": {
        "select": fn("rljax.data.pairs:weighed", columns={
            "task_B": {"answer": 0.9, "format": 0.1}, "blind_B": {"blind": 1.0}}),
        "updates.policy.advantage": fn("rljax.advantages:combine", weights=(1.0, 1.0), parts=(
            stream("task_B"), stream("blind_B")))},
}
QUICK = {"steps": 100, "eval.every": 0}
RUNLOCAL = {"roles.policy.model": fn(
    "rljax.models.vision:vision", images=1, size=(24, 24), patch=(8, 8), tower_width=16, width=32,
    layers=2, heads=2)}
_FORM = (r"<description>(?P<description>.*?)</description>\s*<think>.*?</think>\s*"
         r"\\boxed\{(?P<answer>[^{}]*)\}")
_WORDS = {"form": _FORM, "mark": "\\boxed{", "grammar": "", "max_tokens": 1024, "longest": 2048,
          "template": "{description}\n{question}"}
SCALE = {
    "tokenizer": fn("rljax.data.text:images", marker="#", patches=576,
                    tokenizer=fn("rljax.data.text:hf", path="")),
    "roles.policy.model": fn(
        "rljax.models.vision:hf", path="", images=1, size=(336, 336), patch=(14, 14),
        tower_width=1280, tower_layers=32, tower_heads=16),
    "roles.policy.init": None, "limits.prompt": 2048, "limits.response": 2048,
    "rewards.answer.mark": "\\boxed{", "rewards.format.form": _FORM,
    **{f"rewards.blind.{k}": v for k, v in _WORDS.items()},
    **{f"eval.measure.reader.{k}": v for k, v in _WORDS.items()},
    "prompts": 128, "updates.policy.accum": 64, "reward_deadline": 3600.0,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6),
}

ACC, SUFFICIENT, SHORTCUT = (f"eval/test/{k}" for k in ("accuracy", "sufficiency", "shortcut"))
CLAIMS = [
    dict(says="the language-shortcut rate is 0.15 lower than without the self-reward",
         metric=SHORTCUT, relation="<", than="accuracy", margin=0.15,
         paper="lower than without the self-reward"),
    dict(says="descriptions carry the answer more often, by 0.15", metric=SUFFICIENT, relation=">",
         than="accuracy", margin=0.15),
    dict(says="accuracy is no lower", metric=ACC, relation=">", than="accuracy", margin=-0.01,
         paper="higher"),
    dict(says="with the streams apart the shortcut rate falls as well", metric=SHORTCUT,
         arm="multi", relation="<", than="accuracy", margin=0.15, paper="better than summing"),
    dict(says="the reader is right on whole descriptions", kind="mechanism",
         metric="eval/reader/accuracy", arm="cold", relation=">", than=0.95),
    dict(says="without the self-reward there is something to learn, too", kind="mechanism",
         metric="reward/answer", arm="accuracy", at="shift:10", relation=">", than=0.0),
]
EXACT = tuple(f"tests/rewards/reader_test.py::test_{t}" for t in (
    "the_shortcut_rate_by_hand", "an_answer_in_the_description_earns_nothing",
    "an_empty_description_earns_nothing"))
UNTESTED = ("Reasoning benchmarks and hallucination need a pretrained multimodal model.",)
PLOT = (ACC, SUFFICIENT, SHORTCUT, "reward/answer", "reward/blind", "policy/entropy")
