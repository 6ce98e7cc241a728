"""The sizes of well-known models, to be planned for; nothing is downloaded, nothing trained.

  rljax-plan --config configs/plan_shapes.py:qwen3_0_6b --topology v5e:2x2
  rljax-plan --config configs/plan_shapes.py:qwen2_5_7b --topology v5p:2x2x4
  rljax-plan --config configs/plan_shapes.py:llama3_70b --topology v5p:4x4x8

GRPO with a reference model, float32 weights and moments, bfloat16 activations. A model's fields are
those of its public config.json, such as
https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json. Results: experiments/plans/.
"""

from rljax import recipes
from rljax.config import fn

QWEN3_0_6B = {
    "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936, "hidden_size": 1024,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 3072, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "tie_word_embeddings": True}
QWEN2_5_7B = {
    "architectures": ["Qwen2ForCausalLM"], "vocab_size": 152064, "hidden_size": 3584,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "use_sliding_window": False, "tie_word_embeddings": False}
LLAMA3_70B = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 8192,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
    "intermediate_size": 28672, "rms_norm_eps": 1e-5, "rope_theta": 5e5, "hidden_act": "silu",
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": False}


def get_config():
  c = recipes.grpo()
  c.name = "a plan"
  c.prompts = 32
  c.limits.prompt, c.limits.response = 512, 1536
  c.rollout.group_size = 8
  c.sampling.slots = 64
  c.roles.policy.model = fn("rljax.models.hf:shape", config=QWEN3_0_6B)
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective.kl_coef = 0.001
  c.updates.policy.optimizer.lr = 1e-6
  c.updates.policy.accum = 16
  c.layout.train = "fsdp"
  return c


ARMS = {
    "qwen3_0_6b": {"name": "Qwen3-0.6B"},
    "qwen2_5_7b": {"roles.policy.model": fn("rljax.models.hf:shape", config=QWEN2_5_7B),
                   "prompts": 64, "sampling.slots": 256,
                   "layout.tensor": 4, "layout.train": "fsdp_tp"},
    "llama3_70b": {"roles.policy.model": fn("rljax.models.hf:shape", config=LLAMA3_70B),
                   "prompts": 128, "sampling.slots": 256,
                   "layout.tensor": 8, "layout.train": "fsdp_tp"},
}
