"""One token per slot: from logits, a request's settings and its own randomness to a draw."""

import flax.struct
import jax
import jax.numpy as jnp

from rljax.sampling import warp
from rljax.types import Array


@flax.struct.dataclass
class Settings:
  """What each request asked for; every array is traced, so a new value compiles nothing.

  Letters: S slots, E stop ids, Q stop sequences of at most W tokens, M words of a vocabulary mask.

  Attributes:
    key_SK: uint32, jax key data; with the number of the token a key decides every draw.
    temperature_S, top_k_S, top_p_S, min_p_S: see `warp`. greedy_S: bool, take the likeliest token.
    limit_S: int32, tokens of the response at most.
    forced_S: int32, so many first tokens of the response are given, not drawn.
    stop_SE: int32 token ids that end the response; -1 = none.
    stop_SQW: int32 sequences of tokens that end it, aligned to the right; -1 matches anything, and
      a row of -1 alone is off.
    allowed_SM: uint32, bit v % 32 of word v // 32: may token v be drawn?
    masked_S: bool, does allowed_SM forbid anything?
  """

  key_SK: Array
  temperature_S: Array
  top_k_S: Array
  top_p_S: Array
  min_p_S: Array
  greedy_S: Array
  limit_S: Array
  forced_S: Array
  stop_SE: Array
  stop_SQW: Array
  allowed_SM: Array
  masked_S: Array


@flax.struct.dataclass
class Draw:
  """token_S int32; logp_S under the warped distribution, raw_logp_S under the policy at temperature
  1, entropy_S of the policy at the sampling temperature (nats); top_ids_SA, top_logp_SA: the A
  likeliest tokens of the policy and their raw log-probabilities."""

  token_S: Array
  logp_S: Array
  raw_logp_S: Array
  entropy_S: Array
  top_ids_SA: Array
  top_logp_SA: Array


def draw(settings: Settings, t_S: Array, forced_S: Array, logits_SV: Array, *,
         alternatives: int = 0) -> Draw:
  """Token number t_S of each response. Its randomness depends on the request and t_S alone.

  A forced token reports the log-probability that drawing it would have had; a greedy one 0, since
  greedy puts all mass on its choice.

  Args:
    forced_S: int32, the token where t_S < settings.forced_S.
    alternatives: A, static.
  """
  logp_SV = warp.warp(
      logits_SV, temperature_S=settings.temperature_S, top_k_S=settings.top_k_S,
      top_p_S=settings.top_p_S, min_p_S=settings.min_p_S, allowed_SM=settings.allowed_SM,
      masked_S=settings.masked_S)
  keys_S = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(settings.key_SK), t_S)
  drawn_S = jax.vmap(jax.random.categorical)(keys_S, logp_SV)
  best_S = jnp.argmax(logp_SV, axis=-1)
  given_S = t_S < settings.forced_S
  token_S = jnp.where(settings.greedy_S, best_S, drawn_S)
  token_S = jnp.where(given_S, forced_S, token_S).astype(jnp.int32)
  pick = lambda x_SV: jnp.take_along_axis(x_SV, token_S[:, None], axis=1)[:, 0]
  raw_SV = jax.nn.log_softmax(logits_SV, axis=-1)
  tempered_SV = jax.nn.log_softmax(logits_SV / settings.temperature_S[:, None], axis=-1)
  top_logp_SA, top_ids_SA = jax.lax.top_k(raw_SV, alternatives)
  return Draw(
      token_S, jnp.where(settings.greedy_S & ~given_S, 0.0, pick(logp_SV)), pick(raw_SV),
      -jnp.sum(jnp.exp(tempered_SV) * tempered_SV, axis=-1), top_ids_SA, top_logp_SA)


def stops(settings: Settings, token_S: Array, tail_SW: Array) -> Array:
  """bool [S]: the token is a stop id, or completes a stop sequence.

  Args:
    tail_SW: the last W tokens of the response, this one included (-1 before its start).
  """
  by_id_S = jnp.any(token_S[:, None] == settings.stop_SE, axis=1)
  wild_SQW = settings.stop_SQW < 0
  match_SQ = jnp.all(wild_SQW | (settings.stop_SQW == tail_SW[:, None, :]), axis=-1)
  by_sequence_S = jnp.any(match_SQ & ~jnp.all(wild_SQW, axis=-1), axis=-1)
  return by_id_S | by_sequence_S
