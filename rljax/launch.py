"""`rljax-launch`: what starts a config on a TPU slice, on GKE, or through SkyPilot.

Everything is written as files that can be read first (`--dry-run` prints them): host.sh, what every
host does, and start.sh, what this machine does to get the hosts and the results. Nothing in them
knows of rljax but the call of `rljax-train`, which continues a run after any end but a mistake in
its config (exit code 2).

What must outlive a machine lies in one bucket folder, `--out`: OUT/<job>/checkpoints, and
OUT/<job>/run, a copy of the run folder that is renewed every minute.
"""

import argparse
import dataclasses
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Sequence

from rljax import config as config_lib
from rljax import main as main_lib

ConfigError = config_lib.ConfigError

# Family: (name of the accelerator type, runtime, what its number counts per chip, chips per host).
FAMILIES = {
    "v4": ("v4", "tpu-ubuntu2204-base", 2, 4),
    "v5e": ("v5litepod", "v2-alpha-tpuv5-lite", 1, 4),
    "v5p": ("v5p", "v2-alpha-tpuv5", 2, 4),
    "v6e": ("v6e", "v2-alpha-tpuv6e", 1, 4),
}
_ONE_HOST = {"v5e": 8, "v6e": 8}  # chips that one host may have


@dataclasses.dataclass(frozen=True)
class Slice:
  """A TPU slice as Google Cloud names it."""

  kind: str
  runtime: str
  chips: int
  hosts: int


@dataclasses.dataclass(frozen=True)
class Job:
  """One run: its name, and what `rljax-train` is told."""

  name: str
  arguments: tuple[str, ...]


def tpu(topology: str) -> Slice:
  """The slice behind a name such as v5e-16 or v5p-64.

  Raises:
    ConfigError: another name, or a size that no slice has.
  """
  found = re.fullmatch(r"(v\d[ep]?)-(\d+)", topology)
  if not found or found[1] not in FAMILIES:
    raise ConfigError(f"--topology {topology!r}: a TPU slice such as v5e-1, v5e-16, v5p-64")
  prefix, runtime, per_chip, per_host = FAMILIES[found[1]]
  size = int(found[2])
  chips = size // per_chip
  alone = _ONE_HOST.get(found[1], per_host)
  small = chips == 1 and per_chip == 1  # these come as single chips
  if size % per_chip or not small and (chips < 4 or chips % per_host):
    raise ConfigError(f"--topology {topology!r}: no slice has that size")
  return Slice(f"{prefix}-{size}", runtime, chips, 1 if chips <= alone else chips // per_host)


def jobs(spec: str, name: str, arms: Sequence[str], seeds: int, overrides: Sequence[str]
         ) -> list[Job]:
  """Arms x seeds, seed by seed; every one is loaded once, so that a mistake shows here.

  Raises:
    ConfigError: of the config.
  """
  out = []
  for seed in range(seeds):
    for arm in arms or [""]:
      full = spec + (("," if ":" in spec else ":") + arm if arm else "")
      given = [*overrides, *([f"--config.seed={seed}"] if seeds > 1 else [])]
      config_lib.load(full, config_lib.parse_overrides(given))
      parts = [name, *([arm] if arm else []), *([f"s{seed}"] if seeds > 1 else [])]
      out.append(Job(_name("-".join(parts)), ("--config", full, *given)))
  return out


def _name(text: str) -> str:
  """As Google Cloud and Kubernetes want it."""
  return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")


_HOST = """\
# What every host does, in a clone of rljax. A run that ends in any way but done or with a mistake
# in its config is started again; on these hosts or others it continues from its last checkpoint.
set -u
[ -x .venv/bin/rljax-train ] || {{
  python3 -m venv .venv && .venv/bin/pip install --quiet {extra}
}}

run() {{  # NAME, then what rljax-train is told
  name=$1; shift
  folder=${{RUNS:-runs}}/$name
  mkdir -p "$folder"
  {before}
  until .venv/bin/rljax-train "$@" --workdir "$folder" \\{checkpoints}
      >> "$folder/log-$(hostname).txt" 2>&1; do
    [ $? = 2 ] && {{ touch "$folder/failed"; break; }}
    sleep 10
  done
  {after}
}}

{runs}
"""
_SYNC = """gcloud storage ls "{out}/$name/run/result.json" > /dev/null 2>&1 && return
  gcloud storage rsync --recursive "{out}/$name/run" "$folder" 2> /dev/null
  ( while sleep 60; do gcloud storage rsync --recursive "$folder" "{out}/$name/run"; done ) \\
    > /dev/null 2>&1 &
  copying=$!"""
_SYNCED = """kill $copying
  gcloud storage rsync --recursive "$folder" "{out}/$name/run\""""


def host_script(some: Sequence[Job], out: str, extra: str) -> str:
  """host.sh for these jobs, one after the other. `out` "": the run folders outlive the host."""
  runs = "\n".join(shlex.join(["run", job.name, *job.arguments]) for job in some)
  return _HOST.format(
      extra=shlex.quote(f".[{extra}]") if extra else ".", runs=runs,
      before=_SYNC.format(out=out) if out else ":",
      after=_SYNCED.format(out=out) if out else ":",
      checkpoints=f'\n      --config.checkpoint.folder="{out}/$name/checkpoints" \\'
      if out else "")


_TPU_VM = """\
# Asks for {shown} until they are granted, runs, and asks again
# when they were taken away.
set -u
cd "$(git -C "$(dirname "$0")" rev-parse --show-toplevel)"
NAME={name}
OUT={out}
JOBS="{jobs}"
tpu() {{ gcloud compute tpus "$@"{where}; }}
state() {{ tpu queued-resources describe "$NAME" --format='value(state.state)' 2> /dev/null; }}

grant() {{
  while :; do
    found=$(state)
    echo "$(date +%T) $NAME: ${{found:-not asked for yet}}"
    case "$found" in
      ACTIVE) return ;;
      "") tpu queued-resources create "$NAME" --node-id="$NAME" --accelerator-type={kind} \\
            --runtime-version={runtime}{spot} --async || sleep {wait} ;;
      FAILED|SUSPENDED) tpu queued-resources delete "$NAME" --force --quiet ;;
      *) sleep {wait} ;;
    esac
  done
}}

ended() {{
  gcloud storage ls "$OUT/$1/run/result.json" "$OUT/$1/run/failed" 2> /dev/null | grep -q .
}}
all_ended() {{ for job in $JOBS; do ended "$job" || return 1; done; }}

tar czf "{folder}/source.tgz" --exclude=.venv --exclude=runs --exclude=results --exclude=.git .
until all_ended; do
  grant
  tpu tpu-vm scp "{folder}/source.tgz" "{folder}/host.sh" "$NAME": --worker=all --quiet &&
  tpu tpu-vm ssh "$NAME" --worker=all --quiet --command='mkdir -p rljax &&
    tar xzf source.tgz -C rljax && cd rljax && bash ../host.sh'
  all_ended || sleep {wait}
done
for job in $JOBS; do
  mkdir -p "runs/$job" && gcloud storage rsync --recursive "$OUT/$job/run" "runs/$job"
  [ -f "runs/$job/failed" ] && tail -n 5 "runs/$job"/log-*.txt || cat "runs/$job/result.json"
done
tpu queued-resources delete "$NAME" --force --quiet
"""

_GKE = """\
# Starts one workload per job on a cluster that `xpk cluster create` has made. Kubernetes restarts
# it when its nodes are taken away. To follow it:  xpk workload list --cluster={cluster}{where}
set -eu
cd "$(git -C "$(dirname "$0")" rev-parse --show-toplevel)"
{workloads}
# What came back so far; run these lines whenever you like.
{fetch}
"""


def tpu_vm(some: Sequence[Job], args, folder: str, extra: str) -> dict[str, str]:
  """File name -> text, for a queued resource."""
  kind = tpu(args.topology)
  where = "".join(f" --{k}={shlex.quote(v)}" for k, v in (
      ("project", args.project), ("zone", args.zone)) if v)
  shown = f"{kind.chips} chips on {kind.hosts} host{'s' * (kind.hosts > 1)} ({kind.kind})"
  return {
      "host.sh": host_script(some, args.out, extra),
      "start.sh": _TPU_VM.format(
          shown=shown, name=_name(args.name), out=shlex.quote(args.out),
          jobs=" ".join(j.name for j in some), where=where, kind=kind.kind, runtime=kind.runtime,
          spot=" --spot" if args.spot else "", wait=30, folder=folder)}


def gke(some: Sequence[Job], args, folder: str, extra: str) -> dict[str, str]:
  """File name -> text, for `xpk` workloads, which run at the same time as far as there is room."""
  kind = tpu(args.topology)
  if not args.cluster:
    raise ConfigError("--cluster says on which GKE cluster; `xpk cluster create` makes one")
  where = "".join(f" --{k}={shlex.quote(v)}" for k, v in (
      ("project", args.project), ("zone", args.zone)) if v)
  files, lines, fetch = {}, [], []
  for job in some:
    files[f"{job.name}/host.sh"] = host_script([job], args.out, extra)
    lines.append(
        f"xpk workload create --workload={job.name} --cluster={shlex.quote(args.cluster)}{where} "
        f"--tpu-type={kind.kind} --num-slices=1 --base-docker-image={shlex.quote(args.image)} "
        f"--script-dir=. --max-restarts=1000 --command='bash {folder}/{job.name}/host.sh'")
    fetch.append(f"gcloud storage rsync --recursive {shlex.quote(args.out)}/{job.name}/run "
                 f"runs/{job.name} || true")
  files["start.sh"] = _GKE.format(cluster=args.cluster, where=where, workloads="\n".join(lines),
                                  fetch="\n".join(f"mkdir -p runs/{j.name}" for j in some)
                                  + "\n" + "\n".join(fetch))
  return files


_SKY = """\
# A SkyPilot task. `sky jobs` asks again, wherever there is room, when its machines are taken away.
name: {name}
workdir: .
num_nodes: {nodes}
resources:
  accelerators: {accelerators}
{args}  use_spot: {spot}
file_mounts:
  /outputs:
    source: {out}
    mode: MOUNT_CACHED
run: |
  export RUNS=/outputs
  export RLJAX_COORDINATOR="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):8476"
  export RLJAX_PROCESSES="$SKYPILOT_NUM_NODES" RLJAX_PROCESS="$SKYPILOT_NODE_RANK"
  [ "$SKYPILOT_NUM_NODES" = 1 ] && unset RLJAX_COORDINATOR RLJAX_PROCESSES RLJAX_PROCESS
{host}
"""


def sky(some: Sequence[Job], args, folder: str, extra: str) -> dict[str, str]:
  """File name -> text, for SkyPilot managed jobs; `--topology` may be GPUs, such as H100:8."""
  files, lines = {}, []
  gpus = re.fullmatch(r"[A-Z][\w-]*:\d+", args.topology)
  kind = None if gpus else tpu(args.topology)
  for job in some:
    host = textwrap.indent(host_script([job], "", "cuda" if gpus else extra).rstrip(), "  ")
    files[f"{job.name}.yaml"] = _SKY.format(
        name=job.name, nodes=args.nodes, out=args.out, host=host,
        spot=str(args.spot).lower(), accelerators=args.topology if gpus else f"tpu-{kind.kind}",
        args="" if gpus else f"  accelerator_args:\n    runtime_version: {kind.runtime}\n")
    lines.append(f"sky jobs launch --name={job.name} --yes --detach-run "
                 f"{folder}/{job.name}.yaml")
  files["start.sh"] = ("# Every job's logs: sky jobs logs --name JOB; its run folder is "
                       f"{args.out}/JOB\nset -eu\n"
                       'cd "$(git -C "$(dirname "$0")" rev-parse --show-toplevel)"\n'
                       + "\n".join(lines) + "\n")
  return files


TARGETS = {"tpu-vm": tpu_vm, "gke": gke, "sky": sky}


def main(argv: list[str] | None = None) -> int:
  """rljax-launch --target tpu-vm --topology v5e-16 --config FILE --out gs://bucket/folder"""
  parser = argparse.ArgumentParser(
      "rljax-launch", description="Start a config, or arms x seeds of it, elsewhere.",
      epilog="Any key of the config can be set: --config.steps=100", allow_abbrev=False)
  parser.add_argument("--target", choices=sorted(TARGETS), required=True)
  parser.add_argument("--topology", required=True, help="v5e-1, v5e-16, v5p-64; sky: also H100:8")
  parser.add_argument("--config", required=True, metavar="FILE[:name,...]")
  parser.add_argument("--out", required=True, help="bucket folder, such as gs://bucket/folder")
  parser.add_argument("--name", default="", help="default: that of the config file")
  parser.add_argument("--arms", default="", help="a,b: one job for each")
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--project", default="", help="default: gcloud's own")
  parser.add_argument("--zone", default="", help="default: gcloud's own")
  parser.add_argument("--cluster", default="", help="gke: where `xpk` starts it")
  parser.add_argument("--image", default="google/cloud-sdk:slim", help="gke: has python and gcloud")
  parser.add_argument("--nodes", type=int, default=1, help="sky: machines, each with those GPUs")
  parser.add_argument("--spot", action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument("--dry-run", action="store_true", help="print the files and stop")
  args, rest = parser.parse_known_args(argv)
  return main_lib.guarded(lambda: _launch(args, rest))


def _launch(args, rest):
  file = args.config.partition(":")[0]
  args.name = args.name or pathlib.Path(file).stem
  if not re.fullmatch(r"[a-z0-9]+://[^\s'\"]+", args.out):
    raise ConfigError(f"--out {args.out!r}: a bucket folder such as gs://bucket/folder; the "
                      "machines may be gone tomorrow")
  args.out = args.out.rstrip("/")
  some = jobs(args.config, args.name, [a for a in args.arms.split(",") if a], args.seeds, rest)
  folder = f"runs/launch/{_name(args.name)}"
  files = TARGETS[args.target](some, args, folder, "tpu")
  if args.dry_run:
    for name, text in files.items():
      print(f"# ---- {folder}/{name} ----\n{text}")
    return
  for name, text in files.items():
    path = pathlib.Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  print(f"bash {folder}/start.sh", flush=True)
  done = subprocess.run(["bash", f"{folder}/start.sh"])
  if done.returncode:
    raise ConfigError(f"{folder}/start.sh ended with code {done.returncode}")


if __name__ == "__main__":
  sys.exit(main())
