"""Times other libraries for `rljax.bench` and `rljax.sampling.bench`, in their own environments.

Reads a case as JSON on stdin; `which` names one of CASES below. The last line printed is the result
as JSON. The model comes from a Hugging Face folder. Imports nothing of rljax.
"""

import json
import random
import sys
import tempfile
import time

# --- sampling: {"seconds", "tokens"}; one warm-up call, then the better of two ---


def transformers_generate(case):
  """`model.generate` over batches of `slots` prompts of equal length."""
  import torch
  import transformers
  model = transformers.AutoModelForCausalLM.from_pretrained(case["folder"], dtype=torch.float32)
  model.eval()
  settings = dict(max_new_tokens=case["limit"], do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                  pad_token_id=0, eos_token_id=case["end"] if case["stop"] else None)

  def run(rows):
    tokens = 0
    with torch.no_grad():
      for at in range(0, len(rows), case["slots"]):
        part = rows[at:at + case["slots"]]
        out = model.generate(part, attention_mask=torch.ones_like(part), **settings)
        tokens += count(out[:, part.shape[1]:].tolist(), case)
    return tokens
  return timed(run, torch.tensor(case["prompts"]), case)


def transformers_continuous(case):
  """`model.generate_batch`, the library's continuous batching."""
  import torch
  import transformers
  model = transformers.AutoModelForCausalLM.from_pretrained(
      case["folder"], dtype=torch.float32, attn_implementation="sdpa")
  model.eval()
  settings = transformers.GenerationConfig(
      max_new_tokens=case["limit"], do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
      pad_token_id=0, eos_token_id=case["end"] if case["stop"] else -1, use_cache=True)

  def run(rows):
    out = model.generate_batch(inputs=rows, generation_config=settings, progress_bar=False)
    return sum(len(r.generated_tokens) for r in out.values())
  return timed(run, case["prompts"], case)


def tunix_model(folder):
  """Tunix's own Llama with the folder's weights: (model, its config, the mesh)."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  from tunix.models.llama3 import model as model_lib
  from tunix.models.llama3 import params as params_lib
  with open(f"{folder}/config.json") as f:
    hf = json.load(f)
  config = model_lib.ModelConfig(
      num_layers=hf["num_hidden_layers"], vocab_size=hf["vocab_size"], embed_dim=hf["hidden_size"],
      hidden_dim=hf["intermediate_size"], num_heads=hf["num_attention_heads"],
      head_dim=hf["head_dim"], num_kv_heads=hf["num_key_value_heads"],
      rope_theta=int(hf["rope_theta"]), norm_eps=hf["rms_norm_eps"], weight_tying=True)
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
  with mesh:
    model = params_lib.create_model_from_safe_tensors(folder, config, mesh, jnp.float32)
  return model, config, mesh


def tunix_generate(case):
  """Tunix's sampler."""
  import numpy as np
  from tunix.generate import sampler as sampler_lib
  model, config, _ = tunix_model(case["folder"])
  cache = sampler_lib.CacheConfig(
      cache_size=case["prompt"] + case["limit"] + 8, num_layers=config.num_layers,
      num_kv_heads=config.num_kv_heads, head_dim=config.head_dim)

  class Tokenizer:
    """Text is space-separated token ids."""

    def encode(self, text, **kwargs):
      return [int(t) for t in text.split()]

    def decode(self, ids, **kwargs):
      return " ".join(str(int(i)) for i in ids)

    bos_id = staticmethod(lambda: None)
    eos_id = staticmethod(lambda: case["end"] if case["stop"] else case["end"] + 10**6)
    pad_id = staticmethod(lambda: 0)
    dedup_bos_ids = staticmethod(lambda ids: ids)

  sampler = sampler_lib.Sampler(model, Tokenizer(), cache)

  def run(rows):
    tokens = 0
    for at in range(0, len(rows), case["slots"]):
      out = sampler(rows[at:at + case["slots"]], max_generation_steps=case["limit"],
                    max_prompt_length=case["prompt"], temperature=1.0, top_p=1.0, seed=at)
      tokens += count([np.asarray(t).tolist() for t in out.tokens], case)
    return tokens
  return timed(run, [" ".join(map(str, p)) for p in case["prompts"]], case)


def count(rows, case):
  """Tokens up to the end token, itself included."""
  total = 0
  for row in rows:
    row = row[:case["limit"]]
    total += row.index(case["end"]) + 1 if case["stop"] and case["end"] in row else len(row)
  return total


def timed(run, rows, case):
  run(rows[:case["slots"]])
  best = None
  for _ in range(2):
    start = time.perf_counter()
    tokens = run(rows)
    seconds = time.perf_counter() - start
    if best is None or seconds < best[0]:
      best = seconds, tokens
  return {"seconds": best[0], "tokens": best[1]}


# --- GRPO iterations: {"seconds"}, no reference model, one update per batch ---


def trl_grpo(case):
  import datasets
  import transformers
  from trl import GRPOConfig, GRPOTrainer
  tokenizer = transformers.AutoTokenizer.from_pretrained(case["folder"])
  model = transformers.AutoModelForCausalLM.from_pretrained(case["folder"])
  times = []
  with tempfile.TemporaryDirectory() as out:
    args = GRPOConfig(
        output_dir=out, per_device_train_batch_size=case["prompts"] * case["group"],
        num_generations=case["group"], max_completion_length=case["response"],
        max_steps=case["steps"], beta=0.0, gradient_checkpointing=False, bf16=False, use_cpu=True,
        report_to=[], logging_steps=10**6, save_strategy="no", learning_rate=1e-4,
        disable_tqdm=True, generation_kwargs={"min_new_tokens": case["response"]})
    GRPOTrainer(model=model, reward_funcs=clock(times), args=args, processing_class=tokenizer,
                train_dataset=datasets.Dataset.from_dict({"prompt": texts(case)})).train()
  return between(times)


def tunix_grpo(case):
  import numpy as np
  import optax
  import transformers
  from tunix.rl import rl_cluster as cluster_lib
  from tunix.rl.grpo import grpo_learner
  from tunix.rl.rollout import base_rollout
  model, _, mesh = tunix_model(case["folder"])
  rollout = base_rollout.RolloutConfig(
      max_tokens_to_generate=case["response"], max_prompt_length=case["prompt"], temperature=1.0,
      top_p=1.0, kv_cache_size=case["prompt"] + case["response"] + 8, eos_tokens=[10**6])
  role, times = cluster_lib.Role, []
  cluster = cluster_lib.RLCluster(
      actor=model, tokenizer=transformers.AutoTokenizer.from_pretrained(case["folder"]),
      cluster_config=cluster_lib.ClusterConfig(
          role_to_mesh={r: mesh for r in (role.ACTOR, role.REFERENCE, role.ROLLOUT)},
          rollout_engine="vanilla", offload_to_cpu=False, rollout_config=rollout,
          training_config=cluster_lib.RLTrainingConfig(
              actor_optimizer=optax.adamw(1e-4), eval_every_n_steps=10**6,
              max_steps=case["steps"], checkpoint_root_directory=None,
              metrics_logging_options=None)))
  learner = grpo_learner.GRPOLearner(
      rl_cluster=cluster, reward_fns=clock(times), algo_config=grpo_learner.GRPOConfig(
          num_generations=case["group"], num_iterations=1, beta=0.0))
  rows, n = texts(case), case["prompts"]
  with mesh:
    learner.train([{"prompts": np.asarray(rows[at:at + n])} for at in range(0, len(rows), n)])
  return between(times)


def clock(times):
  """A reward function that notes when it is called: once per iteration in every library."""
  def reward(prompts, completions, **kwargs):
    times.append(time.perf_counter())
    return [float(len(set(str(c)))) for c in completions]
  return reward


def texts(case):
  random.seed(0)
  return ["".join(random.choice("0123456789") for _ in range(case["prompt"] - 1)) + "="
          for _ in range(case["prompts"] * (case["steps"] + 1))]


def between(times):
  """The median gap, compilation left out."""
  gaps = sorted(b - a for a, b in zip(times[3:], times[4:]))
  return {"seconds": gaps[len(gaps) // 2]}


CASES = {"generate": transformers_generate, "continuous": transformers_continuous,
         "tunix": tunix_generate, "trl_grpo": trl_grpo, "tunix_grpo": tunix_grpo}

if __name__ == "__main__":
  asked = json.load(sys.stdin)
  print(json.dumps(CASES[asked["which"]](asked)))
