"""Checkpoints: round trip, and damage of every kind falls back to the one before, aloud."""

import logging
import os

import jax.numpy as jnp
import numpy as np
import pytest

from rljax.config import ConfigError
from rljax.train import checkpoint


def arrays(step):
  return {"a": jnp.arange(5000, dtype=jnp.float32) * step, "b": {"n": jnp.int32(step)}}


@pytest.fixture
def folder(tmp_path):
  saver = checkpoint.Checkpoints(str(tmp_path), keep=2)
  for step in (1, 2, 3):
    saver.save(step, arrays(step), {"cursor": step, "list": [1.5, None]})
  saver.close()
  return tmp_path


def largest_file(folder, step):
  files = [os.path.join(d, f) for d, _, fs in os.walk(folder / str(step)) for f in fs]
  return max(files, key=os.path.getsize)


def restore(folder):
  c = checkpoint.Checkpoints(str(folder))
  try:
    return c.restore(arrays(0)), c.steps()
  finally:
    c.close()


def test_round_trip_and_keep(folder):
  (step, got, host), steps = restore(folder)
  assert step == 3 and steps == [2, 3] and host["cursor"] == 3 and host["list"] == [1.5, None]
  np.testing.assert_array_equal(got["a"], arrays(3)["a"])


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing", "json"])
def test_damage_falls_back(folder, damage, caplog):
  path = largest_file(folder, 3)
  data = bytearray(open(path, "rb").read())
  if damage == "truncate":
    open(path, "wb").write(data[:len(data) // 2])
  elif damage == "flip":
    data[len(data) // 2] ^= 0xFF
    open(path, "wb").write(data)
  elif damage == "missing":
    os.remove(path)
  else:
    open(folder / "3" / "host" / "metadata", "w").write("{")
  with caplog.at_level(logging.WARNING):
    (step, got, _), steps = restore(folder)
  assert step == 2 and steps == [2]
  np.testing.assert_array_equal(got["a"], arrays(2)["a"])
  assert "checkpoint 3" in caplog.text and "cannot be read" in caplog.text


def test_nothing_readable_is_one_error(folder):
  for step in (2, 3):
    open(largest_file(folder, step), "wb").write(b"")
  with pytest.raises(ConfigError, match="no checkpoint in .* can be read"):
    restore(folder)
  assert (folder / "2").exists() and (folder / "3").exists()  # nothing is deleted


def test_an_empty_folder_is_a_new_run(tmp_path):
  assert restore(tmp_path)[0] is None


def test_another_model_is_one_error(folder):
  c = checkpoint.Checkpoints(str(folder))
  with pytest.raises(ConfigError, match="can be read"):
    c.restore({"a": jnp.zeros((3, 3)), "other": jnp.zeros(2)})
  c.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_a_checksum_sees_every_element_and_its_place(dtype):
  x = np.random.default_rng(0).integers(-1, 2, (4, 6)).astype(jnp.dtype(dtype))
  checksum = lambda x: checkpoint._checksums([jnp.asarray(x)])[0]
  seen = {checksum(x), checksum(np.zeros_like(x)), checksum(x[::-1]), checksum(x[:, ::-1]),
          checksum(x[:3]), checksum(np.roll(x, 1))}
  assert len(seen) == 6
  for i in np.ndindex(x.shape):
    changed = x.copy()
    changed[i] = not x[i] if dtype == "bool" else x[i] + 1
    seen.add(checksum(changed))
  assert len(seen) == 6 + x.size
  if dtype == "float32":
    assert checksum(np.float32([1, -1])) != checksum(np.float32([-1, 1]))
  assert checksum(np.zeros(())) != checksum(np.ones(()))
