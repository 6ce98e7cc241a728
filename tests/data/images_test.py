"""Synthetic images: every pixel from a seed, every answer from what was drawn."""

import base64
import zlib

import numpy as np
import pytest

from rljax.data import images


def rng(seed=0):
  return np.random.default_rng(seed)


def test_shapes_have_their_colour_and_outline():
  for shape in images.SHAPES:
    image = images.blank(9, 9)
    images.draw(image, images.Object(shape, "green", 4, 4, 3))
    painted = (image == images.COLORS["green"]).all(-1)
    assert painted[4, 4] and not painted[0].any() and not painted[:, 0].any()
    assert (image[~painted] == 0).all()
  assert len({images.draw(x, images.Object(s, "red", 4, 4, 3)) or x.tobytes() for s, x in (
      (s, images.blank(9, 9)) for s in images.SHAPES)}) == len(images.SHAPES)
  with pytest.raises(ValueError, match="a pink square"):
    images.draw(image, images.Object("square", "pink", 4, 4, 3))


def test_a_gradient_gives_away_left_right_and_down():
  for seed in range(20):
    image = images.gradient(rng(seed), 24, 24).astype(int)
    assert (image[:, 0, 0] > image[:, -1, 0]).all() and (image[:, 0, 2] < image[:, -1, 2]).all()
    assert image[-1].sum() > image[0].sum()
  np.testing.assert_array_equal(images.gradient(rng(3), 8, 8), images.gradient(rng(3), 8, 8))
  assert (images.gradient(rng(3), 8, 8) != images.gradient(rng(4), 8, 8)).any()


def test_digits_are_their_pixels():
  image = images.blank(5, 7)
  images.write(image, "1-", 0, 0, (9, 9, 9))
  assert ["".join(".#"[int(x > 0)] for x in row) for row in image[..., 0]] == [
      ".#.....", "##.....", ".#..###", ".#.....", "###...."]
  drawn = {images.write(x, c, 0, 0, (9, 9, 9)) or x.tobytes() for c, x in (
      (c, images.blank(5, 3)) for c in "0123456789+-=.:")}
  assert len(drawn) == 15
  for text, left in (("12", 1), ("x", 0)):
    with pytest.raises(ValueError, match="can be written"):
      images.write(images.blank(5, 7), text, 0, left, (9, 9, 9))


def test_tiles_share_no_pixel_and_spread_the_remainder():
  image = np.arange(7 * 5 * 3).reshape(7, 5, 3).astype(np.uint8)
  tiles = images.cut(image, 3, 2)
  assert [t.shape[:2] for t in tiles] == [(3, 3), (3, 2), (2, 3), (2, 2), (2, 3), (2, 2)]
  np.testing.assert_array_equal(np.sort(np.concatenate([t.ravel() for t in tiles])),
                                np.sort(image.ravel()))
  np.testing.assert_array_equal(np.hstack(tiles[:2]), image[:3])
  with pytest.raises(ValueError, match="cannot be cut"):
    images.cut(image, 8, 1)


def test_alike_within_a_tolerance():
  a, b = images.blank(2, 2), images.blank(2, 2, (3, 3, 3))
  assert images.alike([a, a.copy()], 0.0) and not images.alike([a, b], 2.9)
  assert images.alike([b, a], 3.0) and not images.alike([a, images.blank(2, 3)], 99.0)


def test_relations_and_counts():
  a, b = images.Object("disc", "red", 2, 8, 1), images.Object("disc", "blue", 5, 3, 1)
  assert [images.related(a, b, r) for r in ("left of", "right of", "above", "below")] == [
      True, False, False, True]
  assert images.matching([a, b], color="red") == [a]
  assert len(images.matching([a, b], shape="disc")) == 2 and not images.matching([a], shape="cross")
  with pytest.raises(ValueError, match="beside"):
    images.related(a, b, "beside")


def test_scattered_shapes_are_inside_and_apart():
  kinds = [("disc", "red"), ("square", "blue"), ("cross", "green")]
  for seed in range(20):
    found = images.scatter(rng(seed), kinds, 24, 24, (2.4, 4.0))
    for i, o in enumerate(found):
      assert o.radius <= min(o.x, o.y) and max(o.x, o.y) <= 23 - o.radius
      assert all(np.hypot(o.x - p.x, o.y - p.y) > o.radius + p.radius for p in found[:i])
  assert images.scatter(rng(), kinds * 9, 12, 12, (3, 4)) is None
  assert [o.x for o in images.columns(kinds, 24, 24)] == [3.5, 11.5, 19.5]


def test_a_table_shows_its_cells():
  cells = [["1", "23"], ["45", "6"]]
  image = images.table(cells)
  changed = images.table([["1", "23"], ["45", "7"]])
  differ = (image != changed).any(-1)
  assert differ.any() and not differ[:9].any() and not differ[:, :11].any()  # in its cell alone
  with pytest.raises(ValueError, match="one length"):
    images.table([["1"], ["2", "3"]])
  with pytest.raises(ValueError, match="more than 2"):
    images.table([["123"]])


def test_widgets_are_where_they_are_hit():
  w = [images.Widget("button", "1", 2, 2, 9, 9), images.Widget("checkbox", "2", 2, 14, 7, 7, True)]
  off = [w[0], images.Widget("checkbox", "2", 2, 14, 7, 7)]
  differ = (images.screen(w, 24, 24) != images.screen(off, 24, 24)).any(-1)
  y, x = np.nonzero(differ)
  assert len(x) and all(images.hit(w, a, b) == w[1] for a, b in zip(x, y))
  assert images.hit(w, 2, 2) == w[0] and images.hit(w, 11, 2) is None


def test_png_holds_the_pixels():
  image = images.gradient(rng(), 5, 7)
  data = base64.b64decode(images.png(image))
  assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[16:24] == bytes([0, 0, 0, 7, 0, 0, 0, 5])
  at, chunks = 8, {}
  while at < len(data):
    n = int.from_bytes(data[at:at + 4], "big")
    kind, body = data[at + 4:at + 8], data[at + 8:at + 8 + n]
    assert zlib.crc32(kind + body) == int.from_bytes(data[at + 8 + n:at + 12 + n], "big")
    chunks[kind] = body
    at += 12 + n
  rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(5, 22)
  np.testing.assert_array_equal(rows[:, 1:].reshape(5, 7, 3), image)
