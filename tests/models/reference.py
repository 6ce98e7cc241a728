"""Tiny random checkpoints of every family, written by transformers."""

import torch
import transformers

SIZES = dict(vocab_size=29, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, intermediate_size=24, rms_norm_eps=1e-5, head_dim=6,
             pad_token_id=0, bos_token_id=1, eos_token_id=2)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
# Every family, with what it alone has made visible: windows shorter than the text, strong caps.
CASES = {
    "llama": ("Llama", {}),
    "llama3-scaled": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 16}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": 4}),
    "qwen2": ("Qwen2", {}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 3,
                               "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True}),
    "qwen3moe": ("Qwen3Moe", {"num_experts": 5, "num_experts_per_tok": 2,
                              "moe_intermediate_size": 12, "norm_topk_prob": True}),
    "gemma": ("Gemma", {}),
    "gemma2": ("Gemma2", {"sliding_window": 4, "query_pre_attn_scalar": 9,
                          "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3", {"sliding_window": 4, "num_hidden_layers": 6, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}),
}


def make(case: str):
  """A random model in which every parameter matters."""
  family, more = CASES[case]
  names = [f"{family}TextConfig", f"{family}Config"]
  config_class = next(getattr(transformers, n) for n in names if hasattr(transformers, n))
  config = config_class(**{**SIZES, **more}, attn_implementation="eager")
  torch.manual_seed(0)
  model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
  for name, p in model.named_parameters():
    norm = p.ndim == 1 and "norm" in name
    torch.nn.init.normal_(p, 1.0 if norm and not family.startswith("Gemma") else 0.0,
                          0.3 if p.ndim == 1 else 0.4)
  return model


def save(path, case: str, **kwargs):
  model = make(case)
  model.save_pretrained(path, **kwargs)
  return model


def logits(model, tokens, lengths):
  """[B, S, V] of right-padded rows, numpy."""
  mask = torch.arange(tokens.shape[1])[None] < torch.tensor(lengths)[:, None]
  with torch.no_grad():
    return model(torch.tensor(tokens), attention_mask=mask.long()).logits.numpy()


def greedy(model, prompt, limit):
  """int [n]: what `generate` adds to one prompt, end token included."""
  prompt = torch.tensor(prompt[None].tolist())
  with torch.no_grad():
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                         max_new_tokens=limit)
  return out[0, prompt.shape[1]:].numpy()
