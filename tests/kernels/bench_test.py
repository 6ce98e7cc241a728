"""The bench's command runs, and its numbers mean what they say."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from rljax_kernels.bench import __main__ as bench
from rljax_kernels.bench import cases
from rljax_kernels.token_logprob import mosaic


def test_the_table_of_this_device(capsys, tmp_path):
  record = tmp_path / "record.md"
  sizes = ["--tokens=64", "--width=32", "--vocab=500", "--repeats=1"]
  assert bench.main(["--only=token", "--record", str(record), *sizes]) == 0
  text = capsys.readouterr().out
  rows = {r.split("|")[4].strip(): [c.strip() for c in r.split("|")[5:9]]
          for r in text.splitlines() if r.startswith("| token_logprobs")}
  assert list(rows) == ["dense", "xla", "mosaic", "triton"]
  for form in ("dense", "xla"):
    forward, backward, extra, floor = rows[form]
    assert float(forward) > 0 and float(backward) >= 0 and float(extra) > 0 and "% of" in floor
  assert "needs a TPU" in rows["mosaic"][3] and "needs a GPU" in rows["triton"][3]
  assert "load average" in text and record.read_text().strip() == f"## {text}".strip()


@pytest.mark.parametrize("case", [
    cases.group_advantages(16, 8), cases.gae(16, 8), cases.pg_token_loss(16, 8)],
    ids=lambda c: c.operation)
def test_small_operations_run(case):
  device = jax.devices()[0]
  value = case.compile("xla", device, backward=False).call(*case.inputs(device))
  assert jnp.shape(value) == () and jnp.isfinite(value)
  rows = bench.measure(case, device, repeats=1, timed=True)
  assert [r[3] for r in rows] == ["xla", "mosaic"]


def test_forms_of_a_case_agree():
  case, device = cases.token_logprobs(40, 128, 300, "float32"), jax.devices()[0]
  dense, ours = (case.compile(f, device).call(*case.inputs(device)) for f in ("dense", "xla"))
  for a, b in zip(dense, ours):
    assert jnp.allclose(a, b, atol=1e-4)


def test_tuning_keeps_the_fastest_blocks(monkeypatch):
  monkeypatch.setattr(mosaic, "BLOCKS", {"default": dict(mosaic.BLOCKS["default"])})
  wanted = {"forward": [256, 1024], "backward": [512, 256]}

  def compiled(self, form, device, *, backward=True):
    name = "backward" if backward else "forward"
    if mosaic.BLOCKS["a chip"][name] == [1024, 2048]:
      raise ValueError("does not fit")
    right = mosaic.BLOCKS["a chip"][name] == wanted[name]
    return cases.Compiled("", 0, lambda *_: 1.0 if right else 2.0)

  monkeypatch.setattr(cases.Case, "compile", compiled)
  chip = dataclasses.make_dataclass("Chip", ["device_kind"])("a chip")
  monkeypatch.setattr(cases.Case, "inputs", lambda self, device: [])
  found = bench.tune(cases.token_logprobs(8, 8, 8, "float32"), chip, repeats=1,
                     time_of=lambda calls, inputs, repeats: {k: c() for k, c in calls.items()})
  assert found == {"a chip": {**mosaic.BLOCKS["default"], **wanted}}


def test_what_cannot_run_is_a_usage_error(capsys):
  for argv, message in ((["--tune"], "needs a TPU"), (["--only=magic"], "no such operation")):
    with pytest.raises(SystemExit):
      bench.main(argv)
    assert message in capsys.readouterr().err
