"""Runs one case of `rljax.sampling.bench` with another library, in that library's environment.

Reads the case as JSON on stdin, prints {"seconds", "tokens"} as the last line. Imports nothing of
rljax. Each library gets one warm-up call, then the better of two.
"""

import json
import sys
import time


def transformers_generate(case):
  """`model.generate` over batches of `slots` prompts of equal length."""
  import torch
  import transformers
  model = transformers.AutoModelForCausalLM.from_pretrained(case["folder"], dtype=torch.float32)
  model.eval()
  ids = torch.tensor(case["prompts"])
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
  return run, ids


def transformers_continuous(case):
  """`model.generate_batch`, the library's continuous batching."""
  import torch
  import transformers
  model = transformers.AutoModelForCausalLM.from_pretrained(
      case["folder"], dtype=torch.float32, attn_implementation="sdpa_paged")
  model.eval()
  settings = transformers.GenerationConfig(
      max_new_tokens=case["limit"], do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
      pad_token_id=0, eos_token_id=case["end"] if case["stop"] else -1, use_cache=True)

  def run(rows):
    out = model.generate_batch(inputs=rows, generation_config=settings, progress_bar=False)
    return sum(len(r.generated_tokens) for r in out.values())
  return run, case["prompts"]


def tunix(case):
  """Tunix's sampler on its own Llama, with the same weights."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  from tunix.generate import sampler as sampler_lib
  from tunix.models.llama3 import model as model_lib
  from tunix.models.llama3 import params as params_lib
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
  return run, [" ".join(map(str, p)) for p in case["prompts"]]


def count(rows, case):
  """Tokens up to the end token, itself included."""
  total = 0
  for row in rows:
    row = row[:case["limit"]]
    total += row.index(case["end"]) + 1 if case["stop"] and case["end"] in row else len(row)
  return total


def main():
  case = json.load(sys.stdin)
  make = {"generate": transformers_generate, "continuous": transformers_continuous,
          "tunix": tunix}[case["which"]]
  run, rows = make(case)
  run(rows[:case["slots"]])
  best = None
  for _ in range(2):
    start = time.perf_counter()
    tokens = run(rows)
    seconds = time.perf_counter() - start
    if best is None or seconds < best[0]:
      best = seconds, tokens
  print(json.dumps({"seconds": best[0], "tokens": best[1]}))


if __name__ == "__main__":
  main()
