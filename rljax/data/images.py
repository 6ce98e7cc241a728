"""Synthetic images with exact answers: shapes, gradients, digits, tiles, tables and widgets.

An image is uint8 [height, width, 3]; everything random is drawn from the numpy generator that is
given, so a seed decides every pixel. What was drawn is plain data (`Object`, `Widget`, the cells of
a table), and the checkers answer questions from that, never from pixels.
"""

import base64
import dataclasses
import functools
import struct
import zlib
from collections.abc import Sequence

import numpy as np

COLORS = {"red": (225, 45, 45), "green": (40, 190, 70), "blue": (50, 90, 235),
          "yellow": (240, 220, 50), "purple": (160, 60, 200), "white": (245, 245, 245)}
SHAPES = ("square", "disc", "triangle", "cross")

_GLYPHS = {  # 5 rows of 3 pixels, a bit each
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717",
    "6": "74757", "7": "71122", "8": "75757", "9": "75717", "+": "02720", "-": "00700",
    "=": "07070", ".": "00002", ":": "02020"}
GLYPH = (5, 3)


@dataclasses.dataclass(frozen=True)
class Object:
  """A shape in a scene: `x`, `y` of its centre and its `radius` in pixels; y grows downwards."""

  shape: str
  color: str
  x: float
  y: float
  radius: float


@dataclasses.dataclass(frozen=True)
class Widget:
  """A button or a checkbox: its rectangle in pixels, its label, and whether it is on."""

  kind: str
  label: str
  left: int
  top: int
  width: int
  height: int
  on: bool = False


# --- pixels -----------------------------------------------------------------------------------


def blank(height: int, width: int, color: Sequence[int] = (0, 0, 0)) -> np.ndarray:
  return np.tile(np.asarray(color, np.uint8), (height, width, 1))


def gradient(draws: np.random.Generator, height: int, width: int) -> np.ndarray:
  """A smooth background of two colours: reddish at the left, bluish at the right, and lighter
  towards the bottom; by how much differs from image to image."""
  left = draws.uniform((90, 20, 20), (170, 60, 60))
  right = draws.uniform((20, 20, 90), (60, 60, 170))
  top = draws.uniform(0.25, 0.5)
  x = np.linspace(0.0, 1.0, width)[None, :, None]
  y = np.linspace(top, 1.0, height)[:, None, None]
  return np.clip(np.rint(((1 - x) * left + x * right) * y * 1.3), 0, 255).astype(np.uint8)


def draw(image: np.ndarray, thing: Object) -> None:
  """Paints a shape into the image; what lies outside is cut off.

  Raises:
    ValueError: an unknown shape or colour.
  """
  if thing.shape not in SHAPES or thing.color not in COLORS:
    raise ValueError(f"a {thing.color} {thing.shape}: colours are {', '.join(COLORS)}, shapes "
                     f"{', '.join(SHAPES)}")
  dx = np.abs(np.arange(image.shape[1]) - thing.x)[None, :]
  dy = (np.arange(image.shape[0]) - thing.y)[:, None]
  image[_INSIDE[thing.shape](dx, dy, thing.radius)] = COLORS[thing.color]


_INSIDE = {  # |x|, y from the centre, radius
    "square": lambda x, y, r: (x <= 0.85 * r) & (np.abs(y) <= 0.85 * r),
    "disc": lambda x, y, r: x**2 + y**2 <= r**2,
    "triangle": lambda x, y, r: (np.abs(y) <= r) & (x <= (y + r) / 2),
    "cross": lambda x, y, r: ((x <= r / 3) & (np.abs(y) <= r)) | ((np.abs(y) <= r / 3) & (x <= r)),
}


def write(image: np.ndarray, text: str, top: int, left: int, color: Sequence[int]) -> None:
  """Writes digits and + - = . : of 5 x 3 pixels, one pixel apart.

  Raises:
    ValueError: another character, or text beyond the image.
  """
  height, width = GLYPH
  end = left + len(text) * (width + 1) - 1
  if set(text) - set(_GLYPHS) or not (0 <= top <= image.shape[0] - height and 0 <= left
                                      and end <= image.shape[1]):
    raise ValueError(f"{text!r} at row {top}, column {left}: {''.join(_GLYPHS)} can be written, "
                     f"inside of {image.shape[:2]}")
  for at, character in enumerate(text):
    for row, bits in enumerate(_GLYPHS[character]):
      for column in range(width):
        if int(bits, 8) >> (width - 1 - column) & 1:
          image[top + row, left + at * (width + 1) + column] = color


def cut(image: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
  """Its tiles in raster order; pixels that do not divide go to the first rows and columns.

  Raises:
    ValueError: fewer pixels than tiles along a side.
  """
  if not (1 <= rows <= image.shape[0] and 1 <= columns <= image.shape[1]):
    raise ValueError(f"an image of {image.shape[:2]} cannot be cut into {rows} x {columns}")
  return [tile for band in np.array_split(image, rows, axis=0)
          for tile in np.array_split(band, columns, axis=1)]


def alike(tiles: Sequence[np.ndarray], tolerance: float) -> bool:
  """Whether two of the tiles have one size and differ by `tolerance` or less, mean over pixels."""
  for i, a in enumerate(tiles):
    for b in tiles[:i]:
      if a.shape == b.shape and np.mean(np.abs(a.astype(float) - b)) <= tolerance:
        return True
  return False


def png(image: np.ndarray) -> str:
  """The image as PNG, base64: what stands behind "data:image/png;base64,"."""
  return _png(np.asarray(image, np.uint8).tobytes(), *image.shape[:2])


@functools.lru_cache(maxsize=4096)  # a group of samples shows one image many times
def _png(pixels, height, width):
  raw = b"".join(b"\0" + pixels[3 * width * row:3 * width * (row + 1)] for row in range(height))
  def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
  data = (b"\x89PNG\r\n\x1a\n"
          + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
          + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))
  return base64.b64encode(data).decode()


# --- scenes -----------------------------------------------------------------------------------


def scatter(draws: np.random.Generator, kinds: Sequence[tuple[str, str]], height: int, width: int,
            radius: tuple[float, float]) -> list[Object] | None:
  """(shape, colour) pairs at random places, apart from each other and wholly inside; None if no
  places were found."""
  out: list[Object] = []
  for shape, color in kinds:
    for _ in range(50):
      r = draws.uniform(*radius)
      x, y = draws.uniform(r, width - 1 - r), draws.uniform(r, height - 1 - r)
      if all(np.hypot(x - o.x, y - o.y) > r + o.radius + 1 for o in out):
        out.append(Object(shape, color, x, y, r))
        break
    else:
      return None
  return out


def columns(kinds: Sequence[tuple[str, str]], height: int, width: int) -> list[Object]:
  """(shape, colour) pairs side by side, from left to right, as large as fits."""
  step = width / len(kinds)
  radius = min(step, height) / 2 - 1
  return [Object(shape, color, (i + 0.5) * step - 0.5, (height - 1) / 2, radius)
          for i, (shape, color) in enumerate(kinds)]


def matching(objects: Sequence[Object], *, shape: str = "", color: str = "") -> list[Object]:
  """Those of this shape and colour; "" = any."""
  return [o for o in objects if shape in ("", o.shape) and color in ("", o.color)]


def related(a: Object, b: Object, relation: str) -> bool:
  """Whether `a` is "left of", "right of", "above" or "below" `b`, by their centres.

  Raises:
    ValueError: another relation.
  """
  rules = {"left of": a.x < b.x, "right of": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}
  if relation not in rules:
    raise ValueError(f"relation {relation!r}; one of {', '.join(rules)}")
  return bool(rules[relation])


# --- documents and screens -----------------------------------------------------------------------


def table(cells: Sequence[Sequence[str]], *, digits: int = 2) -> np.ndarray:
  """A ruled table of numbers, dark on light; `cells` is what it says. Cells have room for `digits`
  characters.

  Raises:
    ValueError: rows of several lengths, or a cell that cannot be written (`write`).
  """
  if len({len(row) for row in cells}) != 1:
    raise ValueError("a table needs rows of one length")
  height, width = GLYPH[0] + 3, digits * (GLYPH[1] + 1) + 2
  image = blank(len(cells) * height + 1, len(cells[0]) * width + 1, COLORS["white"])
  image[::height], image[:, ::width] = 90, 90
  for r, row in enumerate(cells):
    for c, text in enumerate(row):
      if len(text) > digits:
        raise ValueError(f"cell {text!r} has more than {digits} characters")
      write(image, text, r * height + 2, c * width + 2, (0, 0, 0))
  return image


def screen(widgets: Sequence[Widget], height: int, width: int) -> np.ndarray:
  """Buttons (filled where on) and checkboxes (with a cross where on), labels in digits."""
  image = blank(height, width, (200, 205, 215))
  for w in widgets:
    box = image[w.top:w.top + w.height, w.left:w.left + w.width]
    dark = w.kind == "button" and w.on
    box[:] = (60, 90, 160) if dark else COLORS["white"]
    box[[0, -1]], box[:, [0, -1]] = 60, 60
    if w.kind == "checkbox" and w.on:
      reach = range(2, min(w.height, w.width) - 2)
      for i in reach:
        box[i, i] = box[i, min(w.height, w.width) - 1 - i] = (200, 40, 40)
    if w.label:
      left = w.left + (2 if w.kind == "button" else w.width + 1)
      write(image, w.label, w.top + (w.height - GLYPH[0]) // 2, left,
            COLORS["white"] if dark else (0, 0, 0))
  return image


def hit(widgets: Sequence[Widget], x: float, y: float) -> Widget | None:
  """The widget at a point, the last one drawn if several; None = none."""
  found = [w for w in widgets
           if w.left <= x < w.left + w.width and w.top <= y < w.top + w.height]
  return found[-1] if found else None
