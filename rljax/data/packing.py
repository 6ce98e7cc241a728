"""Sequence packing: several episodes in one row of the model, kept apart by segment ids.

Episodes of one group that share a row read what they have in common, their prompt, once: forward
and backward cost what prompts and responses have tokens, not what groups times prompts have.
"""

from collections.abc import Iterable

import numpy as np

from rljax import types


def pack(batch: types.Batch, *, rows: int, length: int = 0, parts: int = 1) -> types.Batch | None:
  """The same batch with its model inputs packed into fewer rows; what objectives see is unchanged.

  `inputs` gains segments_BS (which episode a token is of, B + group for a prompt that several read,
  -1 = padding), prefixes_BS (another segment that the token sees: that prompt, or its own),
  positions_BS (from 0 in each episode) and row_B (the packed row of each episode, counted within
  its part), and action_pos_BT points into the packed row; with media_BNHWC, owner_BS says whose a
  token means, counted likewise. Groups stay together where there is room,
  the longest first; each episode goes to the row where it adds least.

  Args:
    batch: on the host, as `collate` makes it, B rows of S positions.
    rows: packed rows in all, a multiple of `parts`. length: of a packed row; 0 = S.
    parts: micro-batches that the rows will be cut into, times the devices that each is split over:
      an episode stays in its own.

  Returns:
    The packed batch, or None if the episodes do not fit into that many rows.
  """
  tokens_BS, pos_BT = batch.inputs["tokens_BS"], batch.inputs["action_pos_BT"]
  (B, S), length, per_part = tokens_BS.shape, length or tokens_BS.shape[1], rows // parts
  # Nothing after the position that predicts the last action is ever looked at.
  length_B = np.where(batch.valid_B > 0, pos_BT.max(axis=1) + 1, 0)
  part_B = np.arange(B) // (B // parts)
  group_B = np.where(length_B > 0, batch.group_B, -1) + B * part_B
  media = batch.inputs.get("media_BNHWC")
  common_B = _common(tokens_BS, pos_BT[:, 0] + 1, group_B, length_B, media)
  row_B, own_B, prompt_B = np.zeros((3, B), np.int64)  # where each episode and its prompt begin
  reads_B = np.zeros(B, bool)  # it is the one that brings the prompt into its row
  for part in range(parts):
    members = [b for b in np.flatnonzero(part_B == part) if length_B[b]]
    for b, *found in _places(members, group_B, length_B, common_B, per_part, length):
      if not found:
        return None
      row_B[b], own_B[b], prompt_B[b], reads_B[b] = found

  t_1S = np.arange(S)[None]
  shared_BS = t_1S < common_B[:, None]
  to_BS = np.where(shared_BS, prompt_B[:, None], (own_B - common_B)[:, None]) + t_1S
  b, t = np.nonzero((t_1S < length_B[:, None]) & (~shared_BS | reads_B[:, None]))
  place = (part_B * per_part + row_B)[b], to_BS[b, t]
  prefix_B = np.where(common_B > 0, B + batch.group_B, np.arange(B))

  def laid_out(values, empty):
    out = np.full((rows, length), empty, np.int32)
    out[place] = values
    return out
  seen = {} if media is None else {
      "media_BNHWC": media, "owner_BS": laid_out(b % (B // parts), 0)}
  return batch.replace(inputs={
      **seen, "tokens_BS": laid_out(tokens_BS[b, t], 0), "positions_BS": laid_out(t, 0),
      "segments_BS": laid_out(np.where(shared_BS[b, t], prefix_B[b], b), -1),
      "prefixes_BS": laid_out(prefix_B[b], -1), "row_B": row_B.astype(np.int32),
      "action_pos_BT": np.take_along_axis(to_BS, pos_BT, axis=1).astype(np.int32)})


def _common(tokens_BS, prompt_B, group_B, length_B, media):
  """[B]: with how many tokens all episodes of the group begin, prompts only; 0 for single ones, and
  where their media differ."""
  groups, first, index_B, count = np.unique(
      group_B, return_index=True, return_inverse=True, return_counts=True)
  S = tokens_BS.shape[1]
  same_BS = tokens_BS == tokens_BS[first[index_B]]
  same_B = np.where(same_BS.all(axis=1), S, same_BS.argmin(axis=1))
  if media is not None:
    same_B = np.where((media == media[first[index_B]]).all(axis=(1, 2, 3, 4)), same_B, 0)
  least = np.full(len(groups), S)
  np.minimum.at(least, index_B, np.minimum(same_B, prompt_B))
  return np.where((length_B > 0) & (count[index_B] > 1), least[index_B], 0)


def _places(members: Iterable[int], group_B, length_B, common_B, rows, length):
  """(episode, row, where its own tokens begin, where its prompt begins, whether it brings the
  prompt), or (episode,) alone if it has no place."""
  groups: dict[int, list[tuple[int, int]]] = {}
  for b in members:
    groups.setdefault(int(group_B[b]), []).append((-int(length_B[b]), b))
  used = [0] * rows
  for episodes in sorted(map(sorted, groups.values())):
    prompts: dict[int, int] = {}  # row -> where the group's prompt begins in it
    for n, b in ((-n, b) for n, b in episodes):
      common = int(common_B[b])
      row = next((r for r in prompts if used[r] + n - common <= length), None)
      if row is None:
        row = next((r for r in range(rows) if used[r] + n <= length), None)
        if row is None:
          yield (b,)
          return
      brings = row not in prompts
      if brings:
        prompts[row] = used[row]
        used[row] += common
      yield b, row, used[row], prompts[row], brings
      used[row] += n - common
