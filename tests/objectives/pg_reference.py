"""The policy-gradient losses again, as numpy float64 loops written from the papers' equations.

Each surrogate takes one row (lists over its trained tokens) and returns its tokens' losses and the
matrix of their derivatives, J[t][k] = d loss_t / d logp_k. It does not import the code under test.
"""

import math

import numpy as np

from tests.objectives import cases


def clamp(x, low, high):
  return max(low, min(high, x))


def ratio_of(d, limit=20.0):
  """exp of a clamped log-ratio, and its derivative."""
  r = math.exp(clamp(d, -limit, limit))
  return r, (r if -limit < d < limit else 0.0)


def ppo_token(r, dr, A, low, high, dual):
  """min over the two surrogates (PPO equation 7), as a loss; dual clip for A < 0."""
  first, second = r * A, clamp(r, 1 - low, 1 + high) * A
  inside = 1 - low < r < 1 + high
  objective, slope = (first, dr * A) if first <= second else (second, dr * A if inside else 0.0)
  if dual is not None and A < 0 and objective < dual * A:
    objective, slope = dual * A, 0.0
  return -objective, -slope


def diagonal(pairs):
  return [l for l, _ in pairs], np.diag([g for _, g in pairs])


def policy_gradient(row, ratio=False):
  out = []
  for lp, old, A in zip(row["logp"], row["old"], row["adv"]):
    r, dr = ratio_of(lp - old)
    out.append((-A * r, -A * dr) if ratio else (-A * lp, -A))
  return diagonal(out)


def clipped(row, clip_low, clip_high, dual_clip=None):
  return diagonal([ppo_token(*ratio_of(lp - old), A, clip_low, clip_high, dual_clip)
                   for lp, old, A in zip(row["logp"], row["old"], row["adv"])])


def stable(row, ratio_limit, clip_low, clip_high):
  limit = math.log(ratio_limit)
  return diagonal([ppo_token(*ratio_of(lp - old, limit), A, clip_low, clip_high, None)
                   for lp, old, A in zip(row["logp"], row["old"], row["adv"])])


def cispo(row, cap, floor=None):
  out = []
  for lp, old, A in zip(row["logp"], row["old"], row["adv"]):
    w = min(math.exp(lp - old), cap)
    w = w if floor is None else max(w, floor)
    out.append((-w * A * lp, -w * A))
  return diagonal(out)


def gspo(row, level, clip_low, clip_high, dual_clip=None):
  n = len(row["logp"])
  s = math.exp(sum(lp - old for lp, old in zip(row["logp"], row["old"])) / n)
  losses, J = [], np.zeros((n, n))
  for t, A in enumerate(row["adv"]):
    loss, slope = ppo_token(s, s, A, clip_low, clip_high, dual_clip)
    losses.append(loss)
    if level == "sequence":  # d s / d logp_k = s / n for every k
      J[t, :] = slope / n
    else:  # s_t = sg(s) logp_t's own factor
      J[t, t] = slope
  return losses, J


def nft(row, negative_weight, prompt_weight, floor, accuracy_clip, log_ratio_max):
  out = []
  if not 0 < row["accuracy"] < 1:
    return None
  q = clamp(row["accuracy"], accuracy_clip, 1 - accuracy_clip)
  w = {"uniform": 1.0, "hard": 1 - q, "grpo": math.sqrt((1 - q) / q)}[prompt_weight]
  for lp, old in zip(row["logp"], row["old"]):
    d = min(lp - old, log_ratio_max)
    R, dR = math.exp(d), (math.exp(d) if lp - old < log_ratio_max else 0.0)
    if row["correct"]:
      out.append((-w * d, -w * dR / R))
    else:
      x = (1 - q * R) / (1 - q)
      top = max(x, floor)
      out.append((-w * negative_weight * math.log(top),
                  w * negative_weight * q / (1 - q) * dR / top))
  return diagonal(out)


def kl_term(estimator, lp, ref):
  """The penalty's value and derivative (estimators of http://joschu.net/blog/kl-approx.html)."""
  d = lp - ref
  k3 = math.exp(-d) - 1 + d
  return {"k1": (d, 1.0), "k2": (d * d / 2, d), "k3": (k3, 1 - math.exp(-d)),
          "k3+": (k3, d)}[estimator]


def weight_of(kind, level, low, high, old, behav):
  """Importance weights of a row: sampler against trainer."""
  d = [o - b for o, b in zip(old, behav)]
  if level == "sequence":
    d = [sum(d)] * len(d)
  if level == "geometric":
    d = [sum(d) / len(d)] * len(d)
  w = [math.exp(x) for x in d]
  return [min(x, high) if kind == "truncated" else (x if low <= x <= high else 0.0) for x in w]


def total(surrogate, stats, batch, settings, *, aggregation, constant=None, kl_coef=0.0,
          kl_estimator="k3", entropy_coef=0.0, correction=None):
  """Loss and gradient of the whole batch; `correction` is (kind, level, low, high)."""
  n, length = np.shape(batch.mask_BT)
  mask = [[bool(batch.mask_BT[i][t]) and bool(batch.valid_B[i]) for t in range(length)]
          for i in range(n)]
  loss, J = np.zeros((n, length)), np.zeros((n, length, length))
  old = stats.logp_BT if batch.old_logp_BT is None else batch.old_logp_BT
  for i in range(n):
    on = [t for t in range(length) if mask[i][t]]
    row = {"logp": stats.logp_BT[i][on], "old": old[i][on], "adv": batch.adv_BT[i][on],
           "accuracy": batch.extras["accuracy_B"][i], "correct": batch.extras["correct_B"][i]}
    result = surrogate(row, **settings) if on else None
    if result is None:
      mask[i] = [False] * length
      continue
    w = ([1.0] * len(on) if correction is None else
         weight_of(*correction, row["old"], batch.behav_logp_BT[i][on]))
    for a, t in enumerate(on):
      loss[i, t] = w[a] * result[0][a]
      for b, k in enumerate(on):
        J[i, t, k] = w[a] * result[1][a][b]
      if kl_coef:
        lp, o = row["logp"][a], row["old"][a]
        k, dk = kl_term(kl_estimator.removeprefix("ratio-"), lp, batch.ref_logp_BT[i][t])
        r = math.exp(lp - o) if kl_estimator.startswith("ratio-") else 1.0
        r_slope = r if kl_estimator.startswith("ratio-") else 0.0
        loss[i, t] += kl_coef * r * k
        J[i, t, t] += kl_coef * (r * dk + r_slope * k)
      loss[i, t] -= entropy_coef * stats.entropy_BT[i][t]
  grad = np.zeros((n, length))
  for i in range(n):
    for k in range(length):
      only = np.zeros((n, length))
      only[i] = J[i, :, k]
      grad[i, k] = cases.reduce_loops(only, mask, aggregation, constant)
  return cases.reduce_loops(loss, mask, aggregation, constant), grad
