"""The notebooks in colabs/ run from top to bottom, offline, in their smallest form."""

import json
import pathlib

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbclient and ipykernel")
nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel")
pytest.importorskip("ipykernel", reason="notebooks need nbclient and ipykernel")

FOLDER = pathlib.Path(__file__).parent.parent / "colabs"
MOST = 150_000  # bytes of a notebook with its outputs

# notebook -> what is written instead of what, so that it takes seconds
SMALLER = {
    "grpo_in_five_minutes": {
        "BASE_STEPS, STEPS, PROBLEMS = 600, 150, 200": "BASE_STEPS, STEPS, PROBLEMS = 20, 4, 8",
        "AT_LEAST = 0.2": "AT_LEAST = 0.0"},
    "one_step_by_hand": {},
    "change_a_paper": {
        "STEPS, CHANGES = 40, {}": 'STEPS, CHANGES = 2, {"roles.policy.init": None, "select": None,'
                                   ' "prompts": 4, "rollout.group_size": 4}'},
}


def test_all_are_here():
  assert {p.stem for p in FOLDER.glob("*.ipynb")} == set(SMALLER)


@pytest.mark.parametrize("name", SMALLER)
def test_what_is_stored_is_small(name):
  path = FOLDER / f"{name}.ipynb"
  nbformat.validate(nbformat.read(path, as_version=4))
  assert path.stat().st_size < MOST
  assert "/tmp/" not in path.read_text() and "/root/" not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLER)
def test_notebook(name, tmp_path, monkeypatch):
  monkeypatch.setenv("RLJAX_CACHE", str(tmp_path))
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
  changed = set()
  for cell in book.cells:
    for old, new in SMALLER[name].items():
      if old in cell.source:
        changed.add(old)
        cell.source = cell.source.replace(old, new)
  assert changed == set(SMALLER[name]), "a line that the test shortens has changed"
  nbclient.NotebookClient(book, timeout=900, kernel_name="python3",
                          resources={"metadata": {"path": str(FOLDER)}}).execute()
  assert len(json.dumps(book)) < 2 * MOST
  errors = [o for c in book.cells if c.cell_type == "code" for o in c.outputs
            if o.output_type == "error"]
  assert not errors
