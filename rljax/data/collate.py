"""The border between host and device: episodes in, one fixed-shape Batch out."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from rljax import config as config_lib
from rljax import types
from rljax.data import pairs


@dataclasses.dataclass(frozen=True)
class Shapes:
  """Fixed sizes of a batch: B rows, S model positions, T actions per row; and what makes the rows'
  media arrays, (media, tokens, B) -> named inputs (`Policy.media`)."""

  B: int
  S: int
  T: int
  media: Callable = lambda media, tokens, rows: {}


def collate(episodes: Sequence[types.Episode], *, shapes: Shapes, pad_id: int = 0,
            discount: float = 1.0, score: str = "reward") -> types.Batch:
  """Pads episodes into numpy arrays. Who spoke decides what is trained on, never a pad id.

  Tokens of assistant turns with a log-probability or without (demonstrations) are actions. The last
  token of a row is only ever an action, so the model needs no position for it.
  `extras["segment_BT"]` says which of the policy's turns an action belongs to, -1 for none.

  Args:
    episodes: at most B; their columns (`rljax.data.pairs`) become `extras`. An episode whose
      score is NaN, whose status is ERROR, or without actions, becomes an invalid row.
    shapes: B, S and T; S must cover all tokens but the last, T all actions.
    discount: per action, within an episode.
    score: which score is the terminal reward; a missing one counts as 0.

  Raises:
    ValueError: an episode that starts with an action.
    ConfigError: more episodes than rows, or an episode that does not fit.
  """
  B, S, T = shapes.B, shapes.S, shapes.T
  if len(episodes) > B:
    raise config_lib.ConfigError(
        f"{len(episodes)} episodes do not fit in the {B} rows of an update; set its `rows`")
  tokens_BS = np.full((B, S), pad_id, np.int32)
  pos_BT, actions_BT = np.zeros((B, T), np.int32), np.zeros((B, T), np.int32)
  mask_BT, logp_BT, reward_BT, discount_BT = (np.zeros((B, T), np.float32) for _ in range(4))
  segment_BT = np.full((B, T), -1, np.int32)
  valid_B, group_B = np.zeros(B, np.float32), np.full(B, -1, np.int32)
  groups: dict[int, int] = {}
  texts, media = [], []
  for b, e in enumerate(episodes):
    reward = float(e.scores.get(score, 0.0))
    n, t, spoken = 0, 0, 0
    tokens = np.concatenate([turn.tokens for turn in e.turns])
    if len(tokens) - 1 > S or e.num_actions > T:
      raise config_lib.ConfigError(
          f"task {e.task.id}: {len(tokens)} tokens with {e.num_actions} of them the policy's do "
          f"not fit limits.prompt + response + observation = {S + 1}, limits.response = {T}")
    tokens_BS[b, :max(len(tokens) - 1, 0)] = tokens[:-1]
    texts.append(tokens)
    media.append(tuple(image for turn in e.turns for image in turn.media))
    for turn in e.turns:
      k = len(turn.tokens)
      if turn.role == "assistant" and k:
        if n == 0:
          raise ValueError(f"task {e.task.id}: an episode cannot start with an action")
        actions_BT[b, t:t + k] = turn.tokens
        pos_BT[b, t:t + k] = np.arange(n - 1, n - 1 + k)
        mask_BT[b, t:t + k] = 1.0
        if turn.logp is not None:
          logp_BT[b, t:t + k] = turn.logp
        reward_BT[b, t + k - 1] += turn.reward
        segment_BT[b, t:t + k] = spoken
        t, spoken = t + k, spoken + 1
      n += k
    group_B[b] = groups.setdefault(e.group, len(groups))
    if t == 0 or not math.isfinite(reward) or e.status == types.ERROR:
      mask_BT[b] = reward_BT[b] = 0.0
      continue
    valid_B[b] = 1.0
    reward_BT[b, t - 1] += reward
    discount_BT[b, :t - 1] = discount
  return types.Batch(
      inputs={"tokens_BS": tokens_BS, "action_pos_BT": pos_BT, **shapes.media(media, texts, B)},
      actions_BT=actions_BT, mask_BT=mask_BT, behav_logp_BT=logp_BT,
      reward_BT=reward_BT, discount_BT=discount_BT,
      adv_BT=np.zeros((B, T), np.float32), valid_B=valid_B, group_B=group_B,
      extras={"segment_BT": segment_BT, **pairs.columns(episodes, rows=B),
              **pairs.turn_columns(episodes, segment_BT)})
