"""SPR: predict one's own latents, K steps ahead (https://arxiv.org/abs/2007.05929)."""

import jax
import jax.numpy as jnp

from rljax import nums
from rljax.classic import dqn, nets
from rljax.classic import env as env_lib
from rljax.types import Array


def self_prediction(env: env_lib.Env, network: dqn.Network, *, steps: int = 5, weight: float = 5.0,
                    target_step: float = 1.0, stop_gradient: bool = True, predictor: bool = True,
                    channels: int = 32) -> dqn.Auxiliary:
  """mean_k (2 - 2 cos(q(g(z_k)), g'(f'(o_{t+k})))), masked from the end of the episode on.

  z_0 = f(o_t), z_{k+1} = h(z_k, a_{t+k}): two convolutions on the latent and planes of the action,
  renormalised to [0, 1] (`nets.min_max`); g is the first linear layer of the head, q linear; f' and
  g' are `followed` weights without a gradient. With K = 5 and weight 5 this is the paper's 2 sum_k
  (1 - cos). Without its batch norm.

  Args:
    steps: K; 0 compares two views of the same observation.
    weight: of the loss beside the TD loss.
    target_step: how far f' and g' move towards f and g after each update; 1 = copies (with
      augmentation), 0.01 = averages (without).
    stop_gradient: False takes f and g themselves, with their gradient. predictor: False drops q.
    channels: of the first convolution of h.
  """
  A, (_, _, C) = env.n_actions, network.latent_shape
  ks = range(1, steps + 1) if steps else range(1)

  def init(key):
    keys = jax.random.split(key, 3)
    return {"in": nets.conv_init(keys[0], 3, C + A, channels),
            "out": nets.conv_init(keys[1], 3, channels, C),
            "predictor": nets.dense_init(keys[2], network.hidden, network.hidden, scale=1.0)}

  def transition(own, latent, action):
    planes = jnp.broadcast_to(jax.nn.one_hot(action, A)[None, None], (*latent.shape[:2], A))
    x = jax.nn.relu(nets.conv(own["in"], jnp.concatenate([latent, planes], axis=-1), size=3))
    return nets.min_max(jax.nn.relu(nets.conv(own["out"], x, size=3)))

  def predicted(params, latent):
    features = network.project(params, latent)
    return nets.dense(params["auxiliary"]["predictor"], features) if predictor else features

  def loss(params, followed, latent_B, obs_BW, action_BK, alive_BW):
    teacher = jax.lax.stop_gradient(followed) if stop_gradient else params
    seen = lambda obs: network.project(teacher, network.encode(teacher, obs))
    target_BKD = jax.vmap(jax.vmap(seen))(obs_BW[:, ks[0]:ks[-1] + 1])
    each = lambda f, *args: jax.vmap(f, in_axes=(None,) + (0,) * len(args))
    total_B, cosines = 0.0, []
    for k in ks:
      if k:
        latent_B = each(transition, 0, 0)(params["auxiliary"], latent_B, action_BK[:, k - 1])
      cos_B = cosine(each(predicted, 0)(params, latent_B), target_BKD[:, k - ks[0]])
      total_B += alive_BW[:, k] * (2.0 - 2.0 * cos_B)
      cosines.append(cos_B)
    metrics = {"spr/cosine": nums.mean_metric(
        jnp.stack(cosines, axis=1), alive_BW[:, ks[0]:ks[-1] + 1])}
    return total_B / len(ks), metrics

  return dqn.Auxiliary(init, steps, loss, weight, target_step)


def cosine(x_BD: Array, y_BD: Array, *, eps: float = 1e-3) -> Array:
  """[B]; of vectors shorter than eps it shrinks to 0 with them, and its gradient stays finite."""
  def unit(v_BD):
    return v_BD * jax.lax.rsqrt(jnp.maximum(jnp.sum(v_BD**2, axis=-1, keepdims=True), eps**2))
  return jnp.sum(unit(x_BD) * unit(y_BD), axis=-1)
