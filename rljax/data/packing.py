"""Sequence packing: several short episodes in one row of the model, kept apart by segment ids."""

import numpy as np

from rljax import types


def pack(batch: types.Batch, *, rows: int, parts: int = 1) -> types.Batch | None:
  """The same batch with its model inputs packed into fewer rows; what objectives see is unchanged.

  `inputs` gains segments_BS (which episode a token is of, -1 = padding), positions_BS (from 0 in
  each segment) and row_B (the packed row of each episode, counted within its part), and
  action_pos_BT points into the packed row. Longest first, each into the first row with room.

  Args:
    batch: on the host, as `collate` makes it, B rows of S positions.
    rows: packed rows in all, a multiple of `parts`.
    parts: micro-batches that the rows will be cut into: an episode stays in its own.

  Returns:
    The packed batch, or None if the episodes do not fit into that many rows.
  """
  tokens_BS, pos_BT = batch.inputs["tokens_BS"], batch.inputs["action_pos_BT"]
  (B, S), per_part, episodes = tokens_BS.shape, rows // parts, tokens_BS.shape[0] // parts
  out_RS = np.full((rows, S), 0, np.int32)
  segments_RS, positions_RS = np.full((rows, S), -1, np.int32), np.zeros((rows, S), np.int32)
  used_R, row_B, packed_BT = np.zeros(rows, int), np.zeros(B, np.int32), pos_BT.copy()
  # Nothing after the position that predicts the last action is ever looked at.
  length_B = np.where(batch.valid_B > 0, pos_BT.max(axis=1) + 1, 0)
  for part in range(parts):
    first = part * per_part
    for b in part * episodes + np.argsort(-length_B[part * episodes:(part + 1) * episodes],
                                          kind="stable"):
      n = length_B[b]
      if n == 0:
        packed_BT[b] = 0
        continue
      room = np.flatnonzero(used_R[first:first + per_part] + n <= S)
      if not len(room):
        return None
      r = first + room[0]
      span = slice(used_R[r], used_R[r] + n)
      out_RS[r, span], segments_RS[r, span] = tokens_BS[b, :n], b
      positions_RS[r, span] = np.arange(n)
      row_B[b], packed_BT[b] = room[0], np.minimum(pos_BT[b] + used_R[r], S - 1)
      used_R[r] += n
  return batch.replace(inputs={
      "tokens_BS": out_RS, "segments_BS": segments_RS, "positions_BS": positions_RS,
      "row_B": row_B, "action_pos_BT": packed_BT.astype(np.int32)})
