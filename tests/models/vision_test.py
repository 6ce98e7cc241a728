"""Images: text stays what it is, patches are read where they are named, sampler equals trainer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.data import collate, packing
from rljax.models import export, vision
from rljax.sampling import engine as engine_lib
from rljax.types import FIRST_PATCH

POLICY = vision.vision(9, images=3, size=(4, 6), patch=(2, 3), tower_width=8, width=16, layers=2,
                       heads=2)
TEXT = dataclasses.replace(POLICY, tower=None)
STATS, TOWER = jax.jit(POLICY.stats), jax.jit(lambda p, media: POLICY.tower(p, media))
EOS, PATCHES = 1, 4


@pytest.fixture(scope="module")
def params():
  p = POLICY.init(jax.random.key(3))
  return {**p, "embed": p["embed"] * 0.5}  # a tied head of random hidden states is too sure


def images(n, seed=0):
  rs = np.random.default_rng(seed)
  return tuple(rs.integers(0, 256, (4, 6, 3)).astype(np.uint8) for _ in range(n))


def prompt_of(n, *text, first=True):
  ids = FIRST_PATCH + np.arange(n * PATCHES)
  return np.concatenate([ids, text] if first else [text, ids]).astype(np.int32)


def episode(media, prompt, said, group=0):
  turns = (types.Turn("user", prompt, media=media),
           types.Turn("assistant", np.asarray(said, np.int32), np.zeros(len(said))))
  return types.Episode(types.Task("t", "p"), turns, group=group, scores={"reward": 1.0})


def batch_of(episodes, B=0):
  return collate.collate(episodes, shapes=collate.Shapes(B or len(episodes), 18, 4, POLICY.media))


def logp(params, *episodes):
  return np.asarray(STATS(params, batch_of(episodes)).logp_BT)


def test_patches_divide_the_image():
  assert POLICY.patches == PATCHES and TEXT.patches == 0 and TEXT.media([()], [[]], 4) == {}
  with pytest.raises(ValueError, match="patches that divide it"):
    vision.vision(9, size=(4, 6), patch=(3, 3))


def test_text_through_the_vision_model_is_bitwise_the_text_model(params):
  e = [episode((), np.array([2, 3, 4]), [5, 6, 1]), episode((), np.array([7]), [2, 2])]
  seen, plain = batch_of(e), collate.collate(e, shapes=collate.Shapes(2, 18, 4))
  assert "media_BNHWC" in seen.inputs and "media_BNHWC" not in plain.inputs
  own = {k: v for k, v in params.items() if k != "tower"}
  a, b, c = (fn(w, x) for fn, w, x in (
      (jax.jit(TEXT.stats), own, plain), (STATS, params, plain), (STATS, params, seen)))
  for other in (b, c):
    np.testing.assert_array_equal(a.logp_BT, other.logp_BT)
    np.testing.assert_array_equal(a.entropy_BT, other.entropy_BT)


def test_what_is_named_is_read_and_nothing_else(params):
  media = images(2)
  base = logp(params, episode(media, prompt_of(2, 3), [5, 1]))
  swapped = logp(params, episode(media[::-1], prompt_of(2, 3), [5, 1]))
  assert np.abs(base - swapped)[0, :2].min() > 1e-4  # two images in another order
  b = batch_of([episode(media, prompt_of(2, 3), [5, 1])])
  b.inputs["media_BNHWC"][0, 2] = 77  # a place that no token names
  np.testing.assert_array_equal(STATS(params, b).logp_BT, base)
  b.inputs["media_BNHWC"][0, 1, -1, -1] = 255 - media[1][-1, -1]  # one pixel of one that is
  assert np.abs(STATS(params, b).logp_BT - base)[0, :2].max() > 1e-6


def test_an_image_is_read_whole_and_alone(params):
  media = np.stack(images(3))[None]
  features = TOWER(params, jnp.asarray(media))
  assert features.shape == (1, 3 * PATCHES, 16)
  changed = media.copy()
  changed[0, 1, -1, -1] ^= 255  # the last patch of the second
  moved = np.abs(np.asarray(TOWER(params, jnp.asarray(changed)) - features))[0].max(axis=1)
  assert (moved[PATCHES:2 * PATCHES] > 1e-6).all()  # its first patch sees it
  assert (moved[:PATCHES] == 0).all() and (moved[2 * PATCHES:] == 0).all()


def test_patches_are_cut_in_raster_order(params):
  one = np.zeros((1, 3, 4, 6, 3), np.uint8)
  one[0, 0, 2:, :3] = 255  # the lower left patch, number 2
  off = jax.tree.map(jnp.zeros_like, params["tower"]["layers"])
  w = {"tower": {**params["tower"], "layers": off}}  # without layers each patch stands alone
  moved = np.abs(np.asarray(TOWER(w, jnp.asarray(one)) - TOWER(w, jnp.zeros_like(one))))[0].max(-1)
  assert np.flatnonzero(moved > 1e-6).tolist() == [2]


def test_what_place_an_image_has_is_as_plain_as_what_it_shows(params):
  one, other = images(2)
  shown = np.asarray(TOWER(params, np.stack([[one] * 3, [other] * 3]))).reshape(2, 3, PATCHES, -1)
  by_place, by_content = np.std(shown[0, 0] - shown[0, 1]), np.std(shown[0] - shown[1])
  assert 0.5 < by_place / by_content < 2


def test_every_parameter_of_the_tower_learns(params):
  b = batch_of([episode(images(3), prompt_of(3, 2), [5, 6, 1])])
  grads = jax.jit(jax.grad(lambda p: jnp.sum(POLICY.stats(p, b).logp_BT * b.mask_BT)))(params)
  for path, g in jax.tree_util.tree_leaves_with_path(grads["tower"]):
    assert np.isfinite(g).all() and np.abs(g).max() > 1e-7, path


def test_the_table_refuses_what_does_not_fit():
  media = images(3)
  np.testing.assert_array_equal(POLICY.table(media[:1], prompt_of(1))[0], media[0])
  assert not POLICY.table(media[:1], prompt_of(1))[1:].any()
  rows = POLICY.media([(), media[:1]], [np.array([2]), prompt_of(1)], 4)["media_BNHWC"]
  assert rows.shape == (4, 3, 4, 6, 3) and rows[1, 0].any() and not rows[[0, 2, 3]].any()
  for read in (TEXT.table, lambda m, t: TEXT.media([m], [t], 2)):
    with pytest.raises(ConfigError, match="has 3 images, and the model reads text alone"):
      read(media, prompt_of(3))
  small = media[0][:2, :2]
  padded = POLICY.table((small,), prompt_of(1))[0]
  np.testing.assert_array_equal(padded[:2, :2], small)
  assert not padded[2:].any() and not padded[:, 2:].any()
  for given, prompt, words in (
      (media, prompt_of(2), "names 2 images.*has 3"), ((), prompt_of(1), "names 1 images.*has 0"),
      (media + media[:1], prompt_of(4), "the model reads 3"),
      ((np.zeros((5, 6, 3), np.uint8),), prompt_of(1), "wanted uint8"),
      ((np.zeros((4, 6, 3)),), prompt_of(1), "wanted uint8")):
    with pytest.raises(ConfigError, match=words):
      POLICY.table(given, prompt)


@pytest.fixture(scope="module")
def engine():
  return engine_lib.Engine(POLICY, stop_ids=(EOS,), slots=8, prompt_buckets=(6, 14), max_tokens=4)


def requests(n, **settings):
  """Prompts with no, one and two images; of each kind the tokens are the same, the images not."""
  out = []
  for i in range(n):
    media, prompt = images(i % 3, seed=i), prompt_of(i % 3, 2, 3, first=i % 2 == 0)
    table = POLICY.table(media, prompt) if media else None
    out.append((media, engine_lib.Request(prompt, (i, 5), 4, media=table, **settings)))
  return out


def test_sampled_logprobs_are_the_trainers(params, engine):
  reqs = requests(15)
  done = engine.generate(params, [r for _, r in reqs], jax.random.key(0))
  for (media, r), c in zip(reqs, done):
    n = len(c.tokens)
    np.testing.assert_allclose(
        c.logp, logp(params, episode(media, r.prompt, c.tokens))[0, :n], atol=1e-4)


def test_tokens_do_not_depend_on_company_and_images_are_not_mixed_up(params, engine):
  reqs = [r for _, r in requests(15)]
  key = jax.random.key(0)
  together = engine.generate(params, reqs, key)
  order = np.random.default_rng(1).permutation(15)
  for at, c in zip(order, engine.generate(params, [reqs[i] for i in order], key)):
    np.testing.assert_array_equal(c.tokens, together[at].tokens)
  same = [dataclasses.replace(reqs[1], media=reqs[k].media) for k in (1, 4, 7, 4)]
  same = [dataclasses.replace(r, forced=(5,)) for r in same]
  first = [float(c.logp[0]) for c in engine.generate(params, same, key)]
  assert len({round(x, 6) for x in first[:3]}) == 3 and first[1] == first[3]
  again = engine.generate(params, same[::-1], key)  # nor does an earlier call's cache
  np.testing.assert_allclose([c.logp[0] for c in again], first[::-1], atol=1e-6)


def test_a_long_prompt_and_a_conversation_are_read_in_parts(params):
  media = images(2)
  prompt = prompt_of(2, 2, 3)
  r = engine_lib.Request(prompt, (0, 0), 4, media=POLICY.table(media, prompt), keep=True)
  short = engine_lib.Engine(POLICY, stop_ids=(), slots=2, prompt_buckets=(6,), max_tokens=4,
                            capacity=24)
  c, = short.generate(params, [r], jax.random.key(1))
  np.testing.assert_allclose(
      c.logp, logp(params, episode(media, prompt, c.tokens))[0], atol=1e-4)
  short.book.forget()  # as after an update: all of it is read again
  rest = dataclasses.replace(r, prompt=np.array([4]), parent=c.handle, max_tokens=3, keep=False)
  d, = short.generate(params, [rest], jax.random.key(2))
  whole = np.concatenate([prompt, c.tokens, [4]])
  np.testing.assert_allclose(
      d.logp, logp(params, episode(media, whole, d.tokens))[0, :3], atol=1e-4)


def test_the_engine_refuses_patches_without_images(params, engine):
  with pytest.raises(ValueError, match="token ids outside 0 to 8"):
    engine.generate(params, [engine_lib.Request(prompt_of(1), (0, 0), 2)], jax.random.key(0))


def test_no_folder_is_written_without_the_tower(params, tmp_path):
  with pytest.raises(ConfigError, match="reads images"):
    export.write(POLICY, params, str(tmp_path))


def test_packed_equals_unpacked(params):
  one, other = images(1, seed=1), images(1, seed=2)
  e = [episode(one, prompt_of(1, 2), [5, 6, 1]), episode(one, prompt_of(1, 2), [7, 1]),
       episode(other, prompt_of(1, 2), [5, 1], group=1),  # a group of one prompt, two images
       episode(one, prompt_of(1, 2), [5, 1], group=1),
       episode((), np.array([2, 3]), [6, 1], group=2), episode((), np.array([2]), [1], group=3)]
  batch = batch_of(e, B=8)
  for parts in (1, 2):
    packed = packing.pack(batch, rows=4, length=18, parts=parts)
    pieces = [(batch, packed)] if parts == 1 else [
        tuple(jax.tree.map(lambda x, p=p: x[p * len(x) // 2:(p + 1) * len(x) // 2], b)
              for b in (batch, packed)) for p in (0, 1)]
    for plain, piece in pieces:
      a, b = (STATS(params, x).logp_BT * plain.mask_BT for x in (plain, piece))
      np.testing.assert_allclose(a, b, atol=1e-5)
  shared = (packing.pack(batch, rows=4, length=18).inputs["tokens_BS"] >= FIRST_PATCH).sum()
  assert shared == 3 * PATCHES  # group 0 reads its image once, group 1 each of its own
