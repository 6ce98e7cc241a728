"""rljax-generate: the same text streamed, in one piece, from a run and from what it exported."""

import io

import jax
import pytest

from rljax import config as config_lib
from rljax import main
from rljax.data import text
from rljax.models import export, policy
from rljax.train import export as run_export
from rljax.train import generate, loop

TINY = "tests/train/tiny.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """A run of one step, and its export."""
  root = tmp_path_factory.mktemp("generate")
  loop.train(config_lib.load(TINY, {"steps": 1}), str(root / "run"), quiet=True)
  run_export.export_run(str(root / "run"), str(root / "hf"))
  return str(root / "run"), str(root / "hf")


def said(capsys, *args):
  assert main.generate(list(args)) == 0
  return capsys.readouterr().out


def test_a_run_and_its_export_say_the_same(folders, capsys):
  args = ("--prompt", "3+4=", "--max-tokens", "3", "--temperature", "2", "--seed", "5")
  a, b = (said(capsys, folder, *args) for folder in folders)
  assert a == b and a.endswith("\n")


def test_several_are_numbered_and_lines_of_the_input_are_prompts(folders, capsys, monkeypatch):
  monkeypatch.setattr("sys.stdin", io.StringIO("1+1=\n2+2=\n"))
  out = said(capsys, folders[0], "-n", "2", "--max-tokens", "3")
  assert [line for line in out.splitlines() if line.startswith("---")] == [
      f"--- '{p}' ({i}/2)" for p in ("1+1=", "2+2=") for i in (1, 2)]


def test_stop_strings_and_chat_prompts_reach_the_sampler(folders, capsys, monkeypatch):
  seen = {}
  monkeypatch.setattr(generate, "sample", lambda *loaded, **kw: seen.update(
      kw, prompts=loaded[-1]) or ["said"])
  said(capsys, folders[0], "--prompt", "1+1=", "--stop", "=", "--chat")
  assert seen["stop"] == ["="] and seen["prompts"] == [[{"role": "user", "content": "1+1="}]]


def test_a_stop_string_ends_a_response(folders):
  loaded = generate.load(folders[0])
  whole, = generate.sample(*loaded, ["3+4="], max_tokens=3, temperature=2.0, seed=5)
  assert len(whole) > 1
  cut, = generate.sample(*loaded, ["3+4="], max_tokens=3, temperature=2.0, seed=5, stop=[whole[0]])
  assert cut == whole[0]


@pytest.mark.parametrize("args, message", [
    (["--prompt", "1+1=", "--top-p", "0"], "top_p=0.0"),
    (["--prompt", "x", "--max-tokens", "3"], "x"),
    (["--prompt", "1+1=", "--role", "nobody"], "there is no role 'nobody'"),
])
def test_one_clear_error(folders, capsys, args, message):
  assert main.generate([folders[0], *args]) == 2
  assert message in capsys.readouterr().err


def test_no_folder_and_no_prompt(folders, capsys, monkeypatch):
  assert main.generate(["nowhere", "--prompt", "1"]) == 2
  assert "nowhere" in capsys.readouterr().err
  monkeypatch.setattr("sys.stdin", io.StringIO(""))
  assert main.generate([folders[0]]) == 2
  assert "no prompt" in capsys.readouterr().err


def test_text_comes_while_it_is_sampled(tmp_path):
  tokenizer = text.byte()
  model = policy.decoder(tokenizer.vocab_size, width=16, layers=1, heads=2)
  params = model.init(jax.random.key(0))
  params = {**params, "embed": params["embed"] * 0.1}  # nearly uniform: no early end
  export.write(model, params, str(tmp_path), tokenizer=tokenizer)
  loaded = generate.load(str(tmp_path))
  seen, pieces = [], []
  whole = generate.sample(*loaded, ["What?"], max_tokens=24, show=lambda i, t: seen.append(t))
  assert len(seen) >= 24 // 4 and seen[-1] == whole[0]
  terminal = generate.Terminal(pieces.append)
  for so_far in seen:
    terminal.show(so_far)
  shown = "".join(pieces)
  assert len([p for p in pieces if p]) > 1 and whole[0].startswith(shown)
  assert generate.sample(*loaded, ["What?"], max_tokens=24) == whole
