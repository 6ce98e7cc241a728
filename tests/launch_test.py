"""What `rljax-launch` writes: read by bash, and run against stand-ins for the clouds' commands."""

import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

from rljax import config as config_lib
from rljax import launch

TINY = "tests/train/tiny.py"


def written(capsys, *args):
  """File name -> text, from a dry run."""
  assert launch.main([*args, "--dry-run"]) == 0
  parts = capsys.readouterr().out.split("# ---- ")[1:]
  return {p.split(" ----\n")[0].rpartition("/")[2]: p.split(" ----\n", 1)[1] for p in parts}


def base(target, topology):
  return ["--target", target, "--topology", topology, "--config", TINY, "--out", "gs://b/x"]


@pytest.mark.parametrize("topology, kind, chips, hosts", [
    ("v5e-1", "v5litepod-1", 1, 1), ("v5e-8", "v5litepod-8", 8, 1),
    ("v5e-16", "v5litepod-16", 16, 4), ("v5p-8", "v5p-8", 4, 1), ("v5p-64", "v5p-64", 32, 8),
    ("v4-32", "v4-32", 16, 4), ("v6e-256", "v6e-256", 256, 64)])
def test_slices(topology, kind, chips, hosts):
  found = launch.tpu(topology)
  assert (found.kind, found.chips, found.hosts) == (kind, chips, hosts)


@pytest.mark.parametrize("topology", ["v5p-7", "v5e-3", "v5e-0", "v9-8", "H100:8", "v5e", "v5p-2"])
def test_no_such_slice(topology):
  with pytest.raises(config_lib.ConfigError, match="--topology"):
    launch.tpu(topology)


def test_a_sweep_is_jobs():
  made = launch.jobs(TINY, "My_Run", ["long", "adam"], 2, ["--config.steps=3"])
  assert [j.name for j in made] == [
      "my-run-long-s0", "my-run-adam-s0", "my-run-long-s1", "my-run-adam-s1"]
  assert made[3].arguments == ("--config", f"{TINY}:adam", "--config.steps=3", "--config.seed=1")
  assert [j.name for j in launch.jobs(TINY, "one", [], 1, [])] == ["one"]
  assert launch.jobs(f"{TINY}:runlocal", "x", ["long"], 1, [])[0].arguments[1].endswith(
      ":runlocal,long")


@pytest.mark.parametrize("args, says", [
    (["--config.stepz=3"], "stepz"), (["--arms", "nobody"], "nobody"),
    (["--out", "runs"], "--out 'runs': a bucket folder"), (["--out", "gs://a'b"], "bucket folder"),
    (["--target", "gke"], "--cluster"), (["--topology", "v5e-5"], "--topology")])
def test_mistakes_show_here(args, says, capsys):
  assert launch.main([*base("tpu-vm", "v5e-1"), *args, "--dry-run"]) == 2
  assert says in capsys.readouterr().err


@pytest.mark.parametrize("target, topology, extra", [
    ("tpu-vm", "v5p-64", []), ("gke", "v5e-16", ["--cluster", "c"]), ("sky", "v5e-16", []),
    ("sky", "H100:8", ["--nodes", "2"])])
def test_bash_and_yaml_can_read_it(target, topology, extra, capsys):
  files = written(capsys, *base(target, topology), *extra, "--arms", "long,adam", "--seeds", "2")
  assert "start.sh" in files
  for name, text in files.items():
    if name.endswith(".yaml"):
      task = yaml.safe_load(text)
      assert task["resources"]["use_spot"] is True and task["file_mounts"]["/outputs"]
      assert task["resources"]["accelerators"] == ("H100:8" if extra else "tpu-v5litepod-16")
      text = task["run"]
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0, name


def test_a_knob_reaches_the_files(capsys):
  plain = written(capsys, *base("tpu-vm", "v5p-64"))
  changed = written(capsys, *base("tpu-vm", "v5p-64"), "--no-spot", "--zone", "us-x", "--project",
                    "p", "--config.seed=7")
  assert "v5p-64" in plain["start.sh"] and "--spot" in plain["start.sh"]
  assert "--spot" not in changed["start.sh"]
  assert "--project=p --zone=us-x" in changed["start.sh"]
  assert "--config.seed=7" in changed["host.sh"] and "--config.seed" not in plain["host.sh"]


# --- run ---


def stand_in(folder, name, body):
  path = pathlib.Path(folder, name)
  path.write_text(f"#!/bin/bash\n{body}\n")
  path.chmod(0o755)


def test_host_script_continues_but_not_after_a_mistake(tmp_path):
  """75 and 143 are tried again; 2 is final, and the next job runs."""
  (tmp_path / ".venv/bin").mkdir(parents=True)
  stand_in(tmp_path / ".venv/bin", "rljax-train", (
      'echo "$@" >> calls\n[[ "$*" == *wrong* ]] && exit 2\n'
      'n=$(grep -c good calls)\n[ $n = 1 ] && exit 75\n[ $n = 2 ] && exit 143\nexit 0'))
  stand_in(tmp_path, "sleep", "exit 0")
  some = [launch.Job("good", ("--config", "good.py")), launch.Job("wrong", ("--config", "w.py")),
          launch.Job("last", ("--config", "last.py", "--config.name=a b"))]
  done = subprocess.run(["bash", "-c", launch.host_script(some, "", "")], cwd=tmp_path, timeout=60,
                        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
  assert done.returncode == 0
  assert (tmp_path / "calls").read_text().splitlines() == [
      *["--config good.py --workdir runs/good"] * 3, "--config w.py --workdir runs/wrong",
      "--config last.py --config.name=a b --workdir runs/last"]
  assert (tmp_path / "runs/wrong/failed").exists() and not (tmp_path / "runs/good/failed").exists()


CLOUD = r"""
echo "$*" >> "$CLOUD/calls"
case "$*" in
  *"queued-resources describe"*)
    n=$(($(cat "$CLOUD/asked" 2> /dev/null || echo 0) + 1)); echo $n > "$CLOUD/asked"
    [ $n = 1 ] && exit 1
    [ $n = 2 ] && echo FAILED; [ $n = 3 ] && exit 1; [ $n = 4 ] && echo WAITING_FOR_RESOURCES
    [ $n = 5 ] && echo ACTIVE; [ $n = 6 ] && echo SUSPENDED; [ $n = 7 ] && exit 1
    [ $n -ge 8 ] && echo ACTIVE; exit 0 ;;
  *"tpu-vm ssh"*)
    [ "$(grep -c 'tpu-vm ssh' "$CLOUD/calls")" = 1 ] && exit 255
    touch "$CLOUD/finished" ;;
  *"storage ls"*) [ -f "$CLOUD/finished" ] && echo found; exit 0 ;;
  *"storage rsync"*) echo '{"status": "done"}' > "${@: -1}/result.json" ;;
esac
"""


@pytest.mark.skipif(not shutil.which("git"), reason="the script finds its clone by git")
def test_a_slice_is_asked_for_until_granted_and_again_when_lost(tmp_path, capsys):
  """Failed once, waited once, lost in the middle (ssh breaks, the slice is suspended), done."""
  files = written(capsys, *base("tpu-vm", "v5e-16"), "--zone", "z")
  clone, cloud = tmp_path / "clone", tmp_path / "cloud"
  here = clone / "runs/launch/tiny"
  here.mkdir(parents=True)
  cloud.mkdir()
  for name, text in files.items():
    (here / name).write_text(text)
  subprocess.run(["git", "init", "-q", str(clone)], check=True)
  stand_in(cloud, "gcloud", CLOUD)
  stand_in(cloud, "sleep", "exit 0")
  done = subprocess.run(
      ["bash", str(here / "start.sh")], capture_output=True, text=True, timeout=60,
      env={**os.environ, "PATH": f"{cloud}:{os.environ['PATH']}", "CLOUD": str(cloud)})
  calls = (cloud / "calls").read_text()
  assert done.returncode == 0, done.stderr
  assert calls.count("queued-resources create tiny") == 3  # at first, after FAILED, after SUSPENDED
  assert calls.count("queued-resources delete tiny") == 3  # FAILED, SUSPENDED, and at the end
  assert calls.count("tpu-vm ssh") == calls.count("tpu-vm scp") == 2
  assert "--worker=all" in calls and "--zone=z" in calls and "v5litepod-16" in calls
  assert (clone / "runs/tiny/result.json").exists() and '"done"' in done.stdout
