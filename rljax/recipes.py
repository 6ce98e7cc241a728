"""Base recipes: a config with every slot filled, to be changed by a config file. No jax in here."""

import ml_collections

from rljax.config import fn


def _base() -> ml_collections.ConfigDict:
  """Every key there is, with its meaning. A key that is not here does not exist."""
  c = ml_collections.ConfigDict()
  c.name = ""                  # shown in the report
  c.seed = 0                   # of everything random
  c.steps = 100                # updates of the whole recipe: rollout, rewards, all `updates`
  c.tokenizer = fn("rljax.data.text:char")
  c.roles = ml_collections.ConfigDict({"policy": role()})
  c.tasks = fn("rljax.data.tasks:addition")
  c.curriculum = fn("rljax.data.curriculum:shuffled")
  c.prompts = 32               # tasks per step
  c.lag = 0                    # 1: sample a step's episodes while the one before is learned from
  c.limits = ml_collections.ConfigDict({
      "prompt": 64,            # tokens; longer prompts are an error or skipped
      "response": 64,          # tokens the policy may produce in one episode, end token included
      "observation": 0,        # tokens that an environment may add to one episode in all
      "on_long_prompt": "error",  # or "skip" (counted)
  })
  c.sampling = ml_collections.ConfigDict({  # the trainer uses the same temperature
      "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
      "slots": 256,            # requests that are decoded together
      "cache_bits": 0,         # 8: half the cache, approximate; see mismatch/kl in the metrics
      "prompt_buckets": (),    # prompt lengths to compile for; () = limits.prompt, and doublings of
                               # it up to a whole episode where limits.observation > 0
  })
  c.rollout = fn("rljax.rollouts.single_turn:single_turn", group_size=8)
  c.rewards = ml_collections.ConfigDict({"correct": fn("rljax.rewards.verify:task_verifier")})
  c.reward_weights = ml_collections.ConfigDict({})  # by name; 1 where absent
  c.reward_deadline = 60.0     # seconds for one reward over one batch
  c.memories = ml_collections.ConfigDict({})  # name -> leaf or None (`data.memory`)
  c.select = None              # a leaf: episodes -> episodes
  c.updates = ml_collections.ConfigDict({"policy": update()})
  c.evals = ml_collections.ConfigDict({})           # name -> task set
  c.eval = ml_collections.ConfigDict({
      "every": 0,              # steps between evaluations; 0 = before and after only
      "samples": 1,            # per problem; 0 = all that a rollout over given responses has
      "temperature": 1.0,
      "greedy": False,
      "limit": 500,            # problems of each set; 0 = all
      "by": "",                # a key of Task.info: metrics for each of its values too
      "rollout": None,         # a leaf, how problems are answered; None = in a single turn
      "verifier": fn("rljax.rewards.verify:task_verifier"),
      "score": "correct",      # what the verifier's number is called in the episodes
      "measure": fn("rljax.evals.pass_at_k:measure"),  # scored episodes -> what is reported
  })
  c.layout = ml_collections.ConfigDict({  # over several devices; see `rljax.sharding`
      "train": "single",       # or "fsdp", "fsdp_tp"
      "tensor": 1,             # devices along the axis "tensor"; the others are along "data"
      "sampler": 0,            # devices of every host that only sample; 0 = all do both
  })
  c.checkpoint = ml_collections.ConfigDict({
      "every": 50,             # steps
      "keep": 2,
      "folder": "",            # such as gs://bucket/run; "" = in the run folder
  })
  c.episodes_max_bytes = 200_000_000    # of the episode log
  return c


def role(model=None, init=None, *, head=None, lora=None, train: bool = True, shares: str = "",
         follow: str = "", decay: float = 0.99, every: int = 1) -> ml_collections.ConfigDict:
  """A named model.

  Args:
    model: leaf of `(vocab) -> Policy`; None = that of the role "policy".
    init: leaf of `(setup) -> params`, or the name of the role to copy at the start; None = random.
    head: leaf of a head for values or rewards (`rljax.models.heads:head`); None = without.
    lora: leaf of adapters (`rljax.models.lora:lora`) over the weights of the role that `shares`
      names, which stay as they are: one base may serve several roles.
    train: it gets an optimizer (that of the update which names it).
    shares: the role whose weights it uses instead of its own.
    follow, decay, every: an exponential moving average of that role's weights, moved after every
      so many-th step; decay=0 copies them: the policy at the beginning of each iteration.
  """
  c = ml_collections.ConfigDict()
  c.model = model
  c.init = init
  c.head, c.lora = head, lora
  c.train, c.shares = train, shares
  c.follow, c.decay, c.every = follow, decay, every
  return c


def update(advantage=None, objective=None, optimizer=None) -> ml_collections.ConfigDict:
  """One update per step: whose weights, with which loss, on which episodes."""
  c = ml_collections.ConfigDict()
  c.role = "policy"            # whose weights
  c.speaker = ""               # train on this role's episodes alone (`Episode.info`); "" = on all
  c.ref = "ref"                # role of the reference, if the objective needs one
  c.value = ""                 # role whose head gives values, if they are needed; "" = its own
  c.advantage = advantage
  c.objective = objective
  c.optimizer = optimizer or fn("rljax.optim:adamw", lr=1e-3)
  c.derive = None              # a leaf: (episodes, ctx) -> the episodes it trains on; None = as is
  c.every = 1                  # at every so many-th step; 0 = never
  c.rows = 0                   # rows of a batch; 0 = prompts * group size (a select may need more)
  c.epochs = 1                 # passes over a batch
  c.minibatches = 1            # optimizer steps per pass
  c.accum = 1                  # micro-batches per optimizer step
  c.pack = 0                   # rows of the model that the episodes share, packed; 0 = one each
  c.pack_length = 0            # tokens of a packed row; 0 = those of the longest episode
  c.discount = 1.0
  c.router = 0.001             # weight of the balance loss, where the model is a mixture of experts
  return c


def grpo() -> ml_collections.ConfigDict:
  """GRPO: groups of responses, rewards normalised in the group, clipped ratio, no KL."""
  c = _base()
  c.roles.policy.model = fn("rljax.models.policy:decoder")
  c.updates.policy = update(
      advantage=fn("rljax.advantages:group_norm"), objective=fn("rljax.objectives.pg:grpo"))
  return c


def ppo() -> ml_collections.ConfigDict:
  """PPO: advantages from a critic that starts as a copy of the policy, and is trained beside it."""
  c = _base()
  c.roles.policy.model = fn("rljax.models.policy:decoder")
  c.roles.critic = role(init="policy", head=fn("rljax.models.heads:head"))
  gae = fn("rljax.advantages:gae")
  c.updates.policy = update(advantage=gae, objective=fn("rljax.objectives.pg:ppo"))
  c.updates.policy.value = "critic"
  c.updates.critic = update(advantage=gae, objective=fn("rljax.objectives.value:clipped"))
  c.updates.critic.role, c.updates.critic.ref = "critic", ""
  return c


def sft() -> ml_collections.ConfigDict:
  """Supervised training on the tasks' demonstrations."""
  c = _base()
  c.roles.policy.model = fn("rljax.models.policy:decoder")
  c.rollout = fn("rljax.rollouts.dataset:demonstrations")
  c.rewards = ml_collections.ConfigDict({})
  c.updates.policy = update(objective=fn("rljax.objectives.supervised:sft"))
  return c


def reward_model() -> ml_collections.ConfigDict:
  """Bradley-Terry on given pairs of responses; evaluated by which response it prefers.

  `data.path` is one file for both: a share of its prompts is held out. `data.eval_path` is another
  file to evaluate on, which may change when a run is continued: after the last step the same
  command evaluates again.
  """
  c = _base()
  c.data = ml_collections.ConfigDict({"path": "", "eval_path": ""})
  path = c.data.get_ref("path")
  c.tasks = fn("rljax.data.comparisons:comparisons", path=path, split="train")
  c.evals.test = fn("rljax.data.comparisons:comparisons", path=path, split="test",
                    instead=c.data.get_ref("eval_path"))
  c.roles = ml_collections.ConfigDict({"reward_model": role(
      model=fn("rljax.models.policy:decoder"), head=fn("rljax.models.heads:head"))})
  c.rollout = fn("rljax.rollouts.dataset:responses", group_size=2)
  c.rewards = ml_collections.ConfigDict({})
  c.updates = ml_collections.ConfigDict(
      {"reward_model": update(objective=fn("rljax.objectives.reward_model:bradley_terry"))})
  c.updates.reward_model.role, c.updates.reward_model.ref = "reward_model", ""
  c.eval.rollout = fn("rljax.rollouts.dataset:responses")
  c.eval.samples, c.eval.limit, c.eval.score = 0, 0, "score"
  c.eval.verifier = fn("rljax.rewards.model:score")
  c.eval.measure = fn("rljax.evals.reward_model:measure")
  return c


def classic() -> ml_collections.ConfigDict:
  """Classic RL in jnp environments: its own keys and loop, the same run folder and commands."""
  c = ml_collections.ConfigDict()
  c.loop = fn("rljax.classic.loop:train")
  c.name = ""                  # shown in the report
  c.seed = 0                   # of everything random
  c.seeds = 1                  # learners side by side; the first is that of a run with one
  c.steps = 100                # lines of the log; each is one program of `chunk` agent steps
  c.chunk = 100
  c.env = fn("rljax.classic.worlds:grid")
  c.agent = fn("rljax.classic.actor_critic:policy_gradient")
  c.evals = ml_collections.ConfigDict({})  # name -> leaf of `rljax.classic.measure`
  c.eval = ml_collections.ConfigDict({
      "every": 0,              # steps between evaluations; 0 = before and after only
  })
  c.checkpoint = ml_collections.ConfigDict({
      "every": 50,             # steps
      "keep": 2,
      "folder": "",            # such as gs://bucket/run; "" = in the run folder
  })
  return c


def runlocal(c) -> None:
  """Shrinks any config to seconds, in place: two steps, few rows, a tiny random model."""
  c.steps, c.eval.every, c.checkpoint.every = 2, 0, 1
  if "loop" in c:
    c.chunk, c.seeds = min(c.chunk, 2), 1
  else:
    _runlocal_model(c)


def _runlocal_model(c):
  c.prompts = min(c.prompts, 4)
  if "group_size" in c.rollout:
    c.rollout.group_size = min(c.rollout.group_size, 4)
  c.eval.limit = 8
  c.limits.response = min(c.limits.response, 48)
  c.sampling.slots = 16
  for spec in c.roles.values():
    if spec.model is not None:
      spec.model = fn("rljax.models.policy:decoder", width=32, layers=2, heads=2)
    if not isinstance(spec.init, str):
      spec.init = None
  for spec in c.updates.values():
    spec.accum, spec.pack, spec.pack_length = 1, 0, 0
