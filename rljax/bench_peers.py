"""Times GRPO iterations of another library for `rljax.bench`, in that library's environment.

Reads {"folder", "prompts", "group", "prompt", "response", "steps", "which", "end"} as JSON on
stdin and prints {"seconds"} as the last line: the median time between two calls of the reward
function, which each library makes once per iteration. The model comes from a Hugging Face folder
with its tokenizer; no reference model, one update per batch. Imports nothing of rljax.
"""

import json
import sys
import tempfile
import time


def clock(times):
  """A reward function that notes when it is called."""
  def reward(prompts, completions, **kwargs):
    times.append(time.perf_counter())
    return [float(len(set(str(c)))) for c in completions]
  return reward


def texts(case):
  import random
  random.seed(0)
  return ["".join(random.choice("0123456789") for _ in range(case["prompt"] - 1)) + "="
          for _ in range(case["prompts"] * (case["steps"] + 1))]


def trl(case, times):
  import datasets
  import transformers
  from trl import GRPOConfig, GRPOTrainer
  tokenizer = transformers.AutoTokenizer.from_pretrained(case["folder"])
  model = transformers.AutoModelForCausalLM.from_pretrained(case["folder"])
  with tempfile.TemporaryDirectory() as out:
    args = GRPOConfig(
        output_dir=out, per_device_train_batch_size=case["prompts"] * case["group"],
        num_generations=case["group"], max_completion_length=case["response"],
        max_steps=case["steps"], beta=0.0, gradient_checkpointing=False, bf16=False, use_cpu=True,
        report_to=[], logging_steps=10**6, save_strategy="no", learning_rate=1e-4,
        disable_tqdm=True, generation_kwargs={"min_new_tokens": case["response"]})
    GRPOTrainer(model=model, reward_funcs=clock(times), args=args, processing_class=tokenizer,
                train_dataset=datasets.Dataset.from_dict({"prompt": texts(case)})).train()


def tunix(case, times):
  import jax
  import jax.numpy as jnp
  import numpy as np
  import optax
  import transformers
  from tunix.models.llama3 import model as model_lib
  from tunix.models.llama3 import params as params_lib
  from tunix.rl import rl_cluster as cluster_lib
  from tunix.rl.grpo import grpo_learner
  from tunix.rl.rollout import base_rollout
  with open(f"{case['folder']}/config.json") as f:
    hf = json.load(f)
  config = model_lib.ModelConfig(
      num_layers=hf["num_hidden_layers"], vocab_size=hf["vocab_size"], embed_dim=hf["hidden_size"],
      hidden_dim=hf["intermediate_size"], num_heads=hf["num_attention_heads"],
      head_dim=hf["head_dim"], num_kv_heads=hf["num_key_value_heads"],
      rope_theta=int(hf["rope_theta"]), norm_eps=hf["rms_norm_eps"], weight_tying=True)
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
  with mesh:
    model = params_lib.create_model_from_safe_tensors(case["folder"], config, mesh, jnp.float32)
  rollout = base_rollout.RolloutConfig(
      max_tokens_to_generate=case["response"], max_prompt_length=case["prompt"], temperature=1.0,
      top_p=1.0, kv_cache_size=case["prompt"] + case["response"] + 8, eos_tokens=[10**6])
  role = cluster_lib.Role
  with tempfile.TemporaryDirectory() as out:
    cluster = cluster_lib.RLCluster(
        actor=model, tokenizer=transformers.AutoTokenizer.from_pretrained(case["folder"]),
        cluster_config=cluster_lib.ClusterConfig(
            role_to_mesh={r: mesh for r in (role.ACTOR, role.REFERENCE, role.ROLLOUT)},
            rollout_engine="vanilla", offload_to_cpu=False, rollout_config=rollout,
            training_config=cluster_lib.RLTrainingConfig(
                actor_optimizer=optax.adamw(1e-4), eval_every_n_steps=10**6,
                max_steps=case["steps"], checkpoint_root_directory=None,
                metrics_logging_options=None)))
    del out
    learner = grpo_learner.GRPOLearner(
        rl_cluster=cluster, reward_fns=clock(times),
        algo_config=grpo_learner.GRPOConfig(num_generations=case["group"], num_iterations=1,
                                            beta=0.0))
    rows = texts(case)
    n = case["prompts"]
    with mesh:
      learner.train([{"prompts": np.asarray(rows[at:at + n])} for at in range(0, len(rows), n)])


def main():
  case, times = json.load(sys.stdin), []
  {"trl": trl, "tunix": tunix}[case["which"]](case, times)
  gaps = sorted(b - a for a, b in zip(times[3:], times[4:]))
  print(json.dumps({"seconds": gaps[len(gaps) // 2]}))


if __name__ == "__main__":
  main()
