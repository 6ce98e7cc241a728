"""Sampling as one pure function: prefill unique prompts, clone caches, decode until all stop."""

import flax.struct
import jax
import jax.numpy as jnp

from rljax.sampling import warp
from rljax.types import Array


@flax.struct.dataclass
class Wave:
  """Requests of one call, S slots over R unique prompts of at most P tokens. All arrays are traced.

  Attributes:
    prompt_RP, prompt_len_R: int32, right-padded.
    row_S: which prompt a slot continues.
    seed_S2: uint32 [S, 2], what makes a request's randomness its own (task number, sample number).
    max_tokens_S: int32; 0 = an empty slot.
    temperature_S, top_k_S, top_p_S, min_p_S: see `warp`. greedy_S: bool, take the likeliest token.
    stop_E: int32 token ids that end a response.
  """

  prompt_RP: Array
  prompt_len_R: Array
  row_S: Array
  seed_S2: Array
  max_tokens_S: Array
  temperature_S: Array
  top_k_S: Array
  top_p_S: Array
  min_p_S: Array
  greedy_S: Array
  stop_E: Array


@flax.struct.dataclass
class Sampled:
  """tokens_ST int32; logp_ST under the warped distribution, raw_logp_ST under the policy at
  temperature 1, entropy_ST of the policy at the sampling temperature; length_S, stop token
  included; stopped_S: ended by a stop token."""

  tokens_ST: Array
  logp_ST: Array
  raw_logp_ST: Array
  entropy_ST: Array
  length_S: Array
  stopped_S: Array


def draw(wave: Wave, key_S: Array, t: Array, logits_SV: Array):
  """One token per slot. The randomness depends on the request and on t alone.

  Returns:
    token_S, logp_S (warped), raw_logp_S, entropy_S.
  """
  logp_SV = warp.warp(logits_SV, temperature_S=wave.temperature_S, top_k_S=wave.top_k_S,
                      top_p_S=wave.top_p_S, min_p_S=wave.min_p_S)
  keys = jax.vmap(jax.random.fold_in, (0, None))(key_S, t)
  sampled_S = jax.vmap(jax.random.categorical)(keys, logp_SV)
  token_S = jnp.where(wave.greedy_S, jnp.argmax(logits_SV, -1), sampled_S).astype(jnp.int32)
  pick = lambda x: jnp.take_along_axis(x, token_S[:, None], axis=1)[:, 0]
  raw_SV = jax.nn.log_softmax(logits_SV, axis=-1)
  logp_S = jnp.where(wave.greedy_S, 0.0, pick(logp_SV))  # greedy puts all mass on its choice
  tempered_SV = jax.nn.log_softmax(logits_SV / wave.temperature_S[:, None], axis=-1)
  entropy_S = -jnp.sum(jnp.exp(tempered_SV) * tempered_SV, axis=-1)
  return token_S, logp_S, pick(raw_SV), entropy_S


def generate(policy, params, wave: Wave, key: Array, *, limit: int) -> Sampled:
  """Samples every slot of a wave; at most `limit` (static) tokens each."""
  S = wave.row_S.shape[0]
  P = wave.prompt_RP.shape[1]
  key_S = jax.vmap(lambda s: jax.random.fold_in(jax.random.fold_in(key, s[0]), s[1]))(wave.seed_S2)
  hidden_RD, cache = policy.prefill(params, wave.prompt_RP, wave.prompt_len_R, P + limit)
  cache = jax.tree.map(lambda x: jnp.take(x, wave.row_S, axis=1), cache)
  start_S = wave.prompt_len_R[wave.row_S]
  out = Sampled(*(jnp.zeros((S, limit), d) for d in (jnp.int32, *(jnp.float32,) * 3)),
                length_S=jnp.zeros(S, jnp.int32), stopped_S=jnp.zeros(S, bool))

  def record(out, t, hidden_SD):
    token_S, *numbers = draw(wave, key_S, t, policy.logits(params, hidden_SD))
    live_S = ~out.stopped_S & (t < wave.max_tokens_S)
    put = lambda buffer, x: jax.lax.dynamic_update_index_in_dim(
        buffer, jnp.where(live_S, x, 0), t, axis=1)
    columns = map(put, (out.tokens_ST, out.logp_ST, out.raw_logp_ST, out.entropy_ST),
                  (token_S, *numbers))
    is_stop_S = jnp.any(token_S[:, None] == wave.stop_E[None, :], axis=1)
    out = Sampled(*columns, out.length_S + live_S, out.stopped_S | (live_S & is_stop_S))
    return out, token_S

  def going(carry):
    t, out, _, _ = carry
    return (t < limit) & jnp.any(~out.stopped_S & (t < wave.max_tokens_S))

  def step(carry):
    t, out, token_S, cache = carry
    hidden_SD, cache = policy.decode(params, token_S, start_S + t - 1, cache)
    out, token_S = record(out, t, hidden_SD)
    return t + 1, out, token_S, cache

  out, token_S = record(out, jnp.int32(0), hidden_RD[wave.row_S])
  return jax.lax.while_loop(going, step, (jnp.int32(1), out, token_S, cache))[1]
