"""The scripts against a stand-in gcloud whose two workers are folders.

The stand-in records its arguments, and runs what is meant for a worker under
bash with that worker's folder as HOME, as ssh would; its status is not 0 if any
worker's is not, as gcloud's (googlecloudsdk/command_lib/compute/tpus/tpu_vm).
"""

import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

TOOLS = ("bash", "git", "tar", "flock", "setsid", "comm", "awk", "ps")
pytestmark = pytest.mark.skipif(
  sys.platform != "linux" or not all(map(shutil.which, TOOLS)),
  reason=f"needs Linux and {', '.join(TOOLS)}",
)

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent / "tpu_scripts"
TPU = ["--name", "pod", "--zone", "there-1a", "--project", "mine"]
PLACE = ["--zone=there-1a", "--project=mine"]
NASTY = [
  "two words", "it's", 'say "hi"', "$HOME `id` $(id) ${x}", "a\nb\n", "",
  "*", "back\\slash\\", "--config.input.pp=decode|flip_lr", "~", "#x", "é ü",
  "tab\there", "!e", "a;b&c", "  ", "-n",
]  # fmt: skip
TRAIN = ["python", "-m", "big_crop.train"]

GCLOUD = r"""#!/usr/bin/env bash
printf '%s\0' "$@" >"$FAKE/calls/$(date +%s%N)"
if [[ $FAKE_FAIL && "$*" == *"$FAKE_FAIL"* ]]; then
  echo "the stand-in fails" >&2
  exit 7
fi
for argument; do
  case $argument in
    --command=*) command=${argument#*=} ;;
    --worker=all) workers="0 1" ;;
    --worker=*) workers=${argument#*=} ;;
    pod:*) target=${argument#*:} ;;
  esac
done
status=0
case "$3 $4" in
  "queued-resources create") cp "$FAKE/next" "$FAKE/queue" ;;
  "queued-resources delete") rm "$FAKE/queue" ;;
  "queued-resources describe")
    head -n 1 "$FAKE/queue" || exit 1
    (($(wc -l <"$FAKE/queue") < 2)) || sed -i 1d "$FAKE/queue"
    ;;
  "tpu-vm scp") for w in $workers; do cp "$5" "$6" "$FAKE/w$w/$target"; done ;;
  "tpu-vm ssh")
    for w in $workers; do
      (cd "$FAKE/w$w" && HOME=$PWD HOSTNAME=w$w bash -c "$command") || status=$?
    done
    ;;
esac
exit $status
"""

# A worker's python3, which installs uv; uv, which makes the venv.
PYTHON3 = r"""#!/usr/bin/env bash
printf '%s ' python3 "$@" >>"$HOME/installed" && echo >>"$HOME/installed"
mkdir -p "$HOME/big_crop/uv/bin"
cat >"$HOME/big_crop/uv/bin/uv" <<'END'
#!/usr/bin/env bash
printf '%s ' uv "$@" >>"$HOME/installed" && echo >>"$HOME/installed"
[[ $1 != venv ]] || { mkdir -p "$HOME/big_crop/venv/bin" &&
  cp "$FAKE/python" "$HOME/big_crop/venv/bin/python"; }
END
chmod +x "$HOME/big_crop/uv/bin/uv"
"""

# The venv's python does what the next line of ~/plan says.
PYTHON = r"""#!{executable}
import json, os, signal, sys, time
if sys.argv[1] == "-c":
  if "jax" in sys.argv[2]:
    sys.exit(print("imported"))
  os.execv(sys.executable, [sys.executable] + sys.argv[1:])
home = os.environ["HOME"]
signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(0)))
with open(home + "/argv", "a") as f:
  print(json.dumps(sys.argv[1:]), file=f)
with open(home + "/plan") as f:
  step, *rest = f.read().splitlines() or ["0"]
with open(home + "/plan", "w") as f:
  f.write("\n".join(rest))
print("step", step, flush=True)
if step == "train":
  time.sleep(60)
if step.startswith("finish "):
  open(step.split()[1] + "/summary.json", "w").close()
  step = "0"
sys.exit(int(step))
"""


class Cloud:
  """A repository with the scripts, the stand-in and its workers."""

  def __init__(self, path):
    self.path, self.repo = path, path / "repo"
    for name in ("calls", "bin", "w0", "w1", "repo"):
      (path / name).mkdir()
    (path / "next").write_text("ACTIVE\n")
    (path / "queue").write_text("ACTIVE\n")
    self.script(path / "python", PYTHON.replace("{executable}", sys.executable))
    self.script(path / "bin/gcloud", GCLOUD)
    shutil.copytree(
      SCRIPTS,
      self.repo / "tpu_scripts",
      ignore=shutil.ignore_patterns("settings.sh"),
    )
    (self.repo / "requirements.txt").write_text("jax\n")
    (self.repo / ".gitignore").write_text("*.out\n")
    git = ["git", "-c", "init.defaultBranch=main", "init", "-q"]
    subprocess.run(git, cwd=self.repo, check=True)
    self.env = {k: v for k, v in os.environ.items() if "BIG_CROP" not in k}
    self.env["PATH"] = f"{path}/bin:{os.environ['PATH']}"
    self.env |= {"FAKE": str(path), "FAKE_FAIL": "", "HOME": str(path)}

  @staticmethod
  def script(path, text):
    path.write_text(text)
    path.chmod(0o755)

  def run(self, name, *args, status=0, stdin=subprocess.DEVNULL, **env):
    done = subprocess.run(
      [self.repo / "tpu_scripts" / name, *args],
      env=self.env | env,
      stdin=stdin,
      capture_output=True,
      text=True,
      timeout=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done

  def calls(self):
    """What was recorded since the last look."""
    calls = []
    for path in sorted((self.path / "calls").iterdir()):
      calls.append(path.read_text().split("\0")[:-1])
      path.unlink()
    return calls

  def workers(self):
    return [self.path / "w0", self.path / "w1"]

  def install(self, *plan):
    """As after `setup`; `plan` is what python will do."""
    for home in self.workers():
      shutil.copytree(SCRIPTS, home / "big_crop/code/tpu_scripts")
      (home / "big_crop/venv/bin").mkdir(parents=True)
      shutil.copy(self.path / "python", home / "big_crop/venv/bin/python")
      (home / "plan").write_text("\n".join(plan))

  def wait_for_end(self):
    for home in self.workers():
      wait = ["flock", "-w", "20", home / "big_crop/lock", "true"]
      subprocess.run(wait, check=True)

  def states(self):
    return [(h / "big_crop/state").read_text() for h in self.workers()]

  def argvs(self, worker=0):
    """The arguments of every python that was run."""
    text = (self.workers()[worker] / "argv").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def cloud(tmp_path):
  yield (made := Cloud(tmp_path))
  for home in made.workers():  # no run outlives its test
    pid = home / "big_crop/pid"
    if pid.exists():
      try:
        os.killpg(int(pid.read_text()), signal.SIGKILL)
      except ProcessLookupError:
        pass


def ssh(command, worker="all"):
  head = ["compute", "tpus", "tpu-vm", "ssh", "pod", f"--worker={worker}"]
  return [*head, f"--command={command}", *PLACE]


def wait_until(condition):
  for _ in range(400):
    if condition():
      return
    time.sleep(0.05)
  raise AssertionError("not within 20 s")


# --- create and delete ---


# https://cloud.google.com/tpu/docs/runtimes; v4 and v5p count TensorCores.
@pytest.mark.parametrize(
  ("given", "accelerator", "runtime", "chips"),
  [
    ("v4-32", "v4-32", "tpu-ubuntu2204-base", 16),
    ("v5e-16", "v5litepod-16", "v2-alpha-tpuv5-lite", 16),
    ("v5litepod-8", "v5litepod-8", "v2-alpha-tpuv5-lite", 8),
    ("v5p-8", "v5p-8", "v2-alpha-tpuv5", 4),
    ("v6e-256", "v6e-256", "v2-alpha-tpuv6e", 256),
  ],
)
@pytest.mark.parametrize("spot", [True, False])
def test_create(cloud, given, accelerator, runtime, chips, spot):
  (cloud.path / "queue").unlink()
  (cloud.path / "next").write_text("WAITING_FOR_RESOURCES\nACTIVE\n")
  done = cloud.run(
    "create", *TPU, "--type", given, "--yes", "--poll=0",
    "--price-per-chip-hour", "0.5", *["--spot"] * spot,
    "--", "--network=a b",
  )  # fmt: skip
  queued = ["compute", "tpus", "queued-resources"]
  describe = [*queued, "describe", "pod", "--format=value(state.state)", *PLACE]
  assert cloud.calls() == [
    describe,
    [
      *queued, "create", "pod", "--node-id=pod",
      f"--accelerator-type={accelerator}", f"--runtime-version={runtime}",
      *["--spot"] * spot, "--network=a b", *PLACE,
    ],
    describe,
    describe,
  ]  # fmt: skip
  kind = "spot" if spot else "on demand"
  assert f"{accelerator}, {chips} chips, {kind}" in done.stdout
  assert f" = {chips / 2:.2f} an hour, {chips * 12:.2f} a day" in done.stdout
  assert "pod: WAITING_FOR_RESOURCES\n" in done.stdout
  assert done.stdout.endswith("pod: ACTIVE\n")


def test_create_waits_for_what_exists_and_says_how_it_failed(cloud):
  (cloud.path / "queue").write_text("PROVISIONING\nPROVISIONING\nFAILED\n")
  done = cloud.run(
    "create", *TPU, "--type=v6e-4", "--poll", "0", "--yes", status=1
  )
  assert not [c for c in cloud.calls() if "create" in c]
  assert done.stderr.startswith("error: create: pod is FAILED")


def test_delete(cloud):
  done = cloud.run("delete", *TPU, "--type=v5p-16", "--yes")
  assert cloud.calls() == [
    [
      "compute", "tpus", "queued-resources", "delete", "pod", "--force",
      "--quiet", *PLACE,
    ]
  ]  # fmt: skip
  assert "8 chips" in done.stdout and "tpu/pricing" in done.stdout


@pytest.mark.parametrize("name", ["create", "delete", "watch"])
def test_what_costs_asks(cloud, name):
  if name == "create":
    (cloud.path / "queue").unlink()
  args = [name, *TPU, "--type=v6e-8", "--poll=0"]
  args = args[:-1] if name == "delete" else args
  args += ["--", *TRAIN] * (name == "watch")
  assert "--yes" in cloud.run(*args, status=1).stderr
  main, side = pty.openpty()
  os.write(main, b"n\n")
  assert "nothing done" in cloud.run(*args, status=1, stdin=side).stderr
  assert not [c for c in cloud.calls() if c[3] != "describe"]
  if name != "watch":
    os.write(main, b"y\n")
    cloud.run(*args, stdin=side)
    assert [c for c in cloud.calls() if c[3] == name]
  os.close(main)
  os.close(side)


# --- settings, flags, errors ---


def test_flag_wins_over_environment_over_settings(cloud):
  (cloud.repo / "tpu_scripts/settings.sh").write_text(
    "BIG_CROP_TPU_NAME=pod BIG_CROP_TPU_ZONE=file BIG_CROP_TPU_PROJECT=file\n"
  )
  env = {"BIG_CROP_TPU_ZONE": "env's zone", "BIG_CROP_TPU_PROJECT": "env"}
  cloud.run("delete", "--project=flag", "--yes", **env)
  assert cloud.calls()[0][-2:] == ["--zone=env's zone", "--project=flag"]


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (["create", *TPU, "--type=v9-8"], "--type is 'v9-8'"),
    (["create", *TPU[2:], "--type=v6e-8"], "set --name or BIG_CROP_TPU_NAME"),
    (["create", *TPU, "--tpye=v6e-8"], "no flag --tpye"),
    (["stop", *TPU, "--yes"], "no flag --yes"),
    (["logs", *TPU, "--lines"], "--lines needs a value"),
    (["launch", *TPU], "put the command after --"),
    (["launch", *TPU, *TRAIN], "what is python?"),
    (["gke", "--name=x", "--image=x", "--accelerator=x", "--topology=4"], ""),
  ],
)
def test_wrong_usage_is_one_line_and_status_2(cloud, args, message):
  error = cloud.run(*args, status=2).stderr
  assert message in error and error.count("\n") == 1
  assert error.startswith(f"error: {args[0]}: ")
  assert not cloud.calls()


COMMANDS = {
  "create": ["--type=v6e-8", "--yes", "--poll=0"],
  "setup": [],
  "sync": [],
  "launch": ["--", *TRAIN, *NASTY],
  "watch": ["--type=v6e-8", "--yes", "--", *TRAIN, *NASTY],
  "logs": ["--follow"],
  "status": [],
  "stop": [],
  "delete": ["--yes"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_errors_of_gcloud_surface(cloud, name):
  done = cloud.run(name, *TPU, *COMMANDS[name], status=1, FAKE_FAIL="compute")
  errors = [e for e in done.stderr.splitlines() if "stand-in" not in e]
  assert errors[0].endswith("ended with status 7"), errors
  assert errors[0].startswith("error: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_dry_run_runs_nothing_and_prints_what_would_run(cloud, name):
  done = cloud.run(name, "--dry-run", *TPU, *COMMANDS[name])
  assert not cloud.calls()
  printed = [x for x in done.stdout.splitlines() if x.startswith("gcloud ")]
  assert printed
  if name in ("launch", "delete"):
    cloud.install()
    subprocess.run(["bash", "-c", *printed], env=cloud.env, check=True)
    from_print = cloud.calls()
    cloud.wait_for_end() if name == "launch" else None
    (cloud.path / "queue").write_text("ACTIVE\n")
    cloud.run(name, *TPU, *COMMANDS[name])
    assert cloud.calls() == from_print


@pytest.mark.parametrize("name", [*COMMANDS, "gke"])
def test_help(cloud, name):
  text = cloud.run(name, "--help").stdout
  assert f"tpu_scripts/{name} " in text and "--dry-run" in text
  assert "shellcheck" not in text


# --- sync and setup ---


def files(home):
  code = home / "big_crop/code"
  found = (p.relative_to(code) for p in code.rglob("*") if not p.is_dir())
  return {str(p) for p in found if p.parts[0] != "tpu_scripts"}


def test_sync(cloud):
  odd = "two words\n'$(id)'.py"
  for name in ("a.py", "b/c.py", odd, "-n", "big.out", "gone.py"):
    path = cloud.repo / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)
  subprocess.run(["git", "add", "a.py", "gone.py"], cwd=cloud.repo, check=True)
  (cloud.repo / "gone.py").unlink()  # in git's index still

  cloud.run("sync", *TPU)
  scp, unpack = cloud.calls()
  assert scp[:4] == ["compute", "tpus", "tpu-vm", "scp"]
  assert [p.rsplit("/")[-1] for p in scp[4:6]] == [
    "big_crop.tgz",
    "big_crop.files",
  ]
  assert scp[6:] == ["pod:./", "--worker=all", *PLACE]
  assert unpack[:6] == ssh("")[:6] and unpack[7:] == PLACE
  expected = {"a.py", "b/c.py", odd, "-n", ".gitignore", "requirements.txt"}
  for home in cloud.workers():
    assert files(home) == expected
    assert (home / "big_crop/code" / odd).read_text() == odd
    assert os.access(home / "big_crop/code/tpu_scripts/worker", os.X_OK)
    (home / "big_crop/code/made_by_a_run").touch()

  (cloud.repo / odd).unlink()
  (cloud.repo / "-n").unlink()
  (cloud.repo / "a.py").write_text("new")
  cloud.run("sync", *TPU)
  for home in cloud.workers():
    expected -= {odd, "-n"}
    assert files(home) == {*expected, "made_by_a_run"}
    assert (home / "big_crop/code/a.py").read_text() == "new"


def test_sync_refuses_while_a_run_is_on(cloud):
  cloud.install("train")
  cloud.run("launch", *TPU, "--", *TRAIN)
  assert "a run is on" in cloud.run("sync", *TPU, status=1).stderr
  cloud.run("stop", *TPU)
  cloud.run("sync", *TPU)


def test_sync_fails_in_one_line_where_packing_does(cloud):
  cloud.script(cloud.path / "bin/tar", "#!/bin/sh\nexit 3\n")
  error = cloud.run("sync", *TPU, status=1).stderr
  assert error.startswith("error: sync: ") and error.count("\n") == 1
  assert not cloud.calls()


def test_sync_needs_git(cloud):
  shutil.rmtree(cloud.repo / ".git")
  error = cloud.run("sync", *TPU, status=1, GIT_CEILING_DIRECTORIES="/").stderr
  assert "not in a git checkout" in error


def test_setup(cloud):
  cloud.script(cloud.path / "bin/python3", PYTHON3)
  cloud.run("setup", *TPU)
  assert cloud.calls()[-1] == ssh("bash big_crop/code/tpu_scripts/worker setup")
  cloud.run("setup", *TPU)  # again: no harm, and no second venv
  for home in cloud.workers():
    base = home / "big_crop"
    pip = (
      f"uv pip install -q --python {base}/venv/bin/python "
      f"-r {base}/code/requirements.txt jax[tpu] "
    )
    assert (home / "installed").read_text().splitlines() == [
      f"python3 -m pip install -q --upgrade --target {base}/uv uv ",
      f"uv venv -q --python >=3.11,<3.13 {base}/venv ",
      pip,
      pip,
    ]


# --- launch, logs, status, stop ---


def test_launch_delivers_the_very_arguments(cloud):
  cloud.install("0")
  cloud.run("launch", *TPU, "--backoff=0", "--", "python", "x.py", *NASTY)
  (call,) = cloud.calls()
  worker = "bash big_crop/code/tpu_scripts/worker start 10 0 python x.py"
  assert call[:6] == ssh("")[:6]
  assert call[6].startswith(f"--command={worker} two\\ words ")
  cloud.wait_for_end()
  for i in range(2):
    assert cloud.argvs(i) == [["x.py", *NASTY]]
  assert cloud.states() == ["done\n", "done\n"]


@pytest.mark.parametrize(
  ("plan", "runs", "state"),
  [
    (["1", "137", "0"], 3, "done"),
    (["2", "0"], 1, "failed 2"),  # the user's mistake
    (["1", "1", "3", "0"], 3, "failed 3"),  # the bound
  ],
)
def test_restarts(cloud, plan, runs, state):
  cloud.install(*plan)
  flags = ["--max-restarts", "2", "--backoff", "0"]
  cloud.run("launch", *TPU, *flags, "--", "python", "x.py")
  cloud.wait_for_end()
  assert cloud.argvs() == [["x.py"]] * runs
  assert cloud.states() == [f"{state}\n"] * 2
  log = (cloud.path / "w0/big_crop/log").read_text()
  assert log.count("restart ") == runs - 1


def test_backoff_doubles(cloud):
  cloud.install("1", "1", "0")
  cloud.script(cloud.path / "bin/sleep", '#!/bin/sh\necho "$1" >>"$HOME/slept"')
  cloud.run("launch", *TPU, "--backoff=400", "--", "python", "x.py")
  cloud.wait_for_end()
  assert (cloud.path / "w0/slept").read_text() == "400\n600\n"


def test_an_end_by_sigterm_elsewhere_is_not_done(cloud):
  workdir = cloud.path / "run"
  workdir.mkdir()
  command = [*TRAIN, "--config", "x", "--workdir", str(workdir)]
  cloud.install("0", f"finish {workdir}")
  for state in ("saved\n", "done\n"):
    cloud.run("launch", *TPU, "--", *command)
    cloud.wait_for_end()
    assert cloud.states() == [state] * 2


@pytest.mark.parametrize("orphaned", [False, True])
def test_stop_lets_python_save_and_waits(cloud, orphaned):
  cloud.install("train")
  cloud.run("launch", *TPU, "--", "python", "x.py")
  logs = [h / "big_crop/log" for h in cloud.workers()]
  wait_until(lambda: all("step train" in p.read_text() for p in logs))
  error = cloud.run("launch", *TPU, "--", "python", "x.py", status=1).stderr
  assert "error: w0: a run is on" in error
  status = cloud.run("status", *TPU).stdout
  assert status == "ACTIVE\nw0: running\nw1: running\n"
  if orphaned:
    for home in cloud.workers():
      os.kill(int((home / "big_crop/pid").read_text()), signal.SIGKILL)
    assert "w0: running" in cloud.run("status", *TPU).stdout
  cloud.calls()
  stopped = cloud.run("stop", *TPU, "--timeout", "20").stdout
  assert cloud.calls() == [ssh("bash big_crop/code/tpu_scripts/worker stop 20")]
  assert all("saved\n" in p.read_text() for p in logs)
  assert len(cloud.argvs()) == 1  # and no restart
  if orphaned:
    assert cloud.run("status", *TPU).stdout == "ACTIVE\nw0: gone\nw1: gone\n"
  else:
    assert stopped == "w0: stopped\nw1: stopped\n"
    assert cloud.run("stop", *TPU).stdout == "w0: no run\nw1: no run\n"


def test_stop_during_backoff(cloud):
  cloud.install("1", "0")
  cloud.run("launch", *TPU, "--backoff=60", "--", "python", "x.py")
  logs = [h / "big_crop/log" for h in cloud.workers()]
  wait_until(lambda: all("restart 1" in p.read_text() for p in logs))
  cloud.run("stop", *TPU, "--timeout=20")
  assert cloud.states() == ["stopped\n"] * 2
  assert len(cloud.argvs()) == 1


def test_one_failing_worker_fails_the_script(cloud):
  cloud.install("0")
  shutil.rmtree(cloud.path / "w1/big_crop/venv")
  done = cloud.run("launch", *TPU, "--", "python", "x.py", status=1)
  assert "error: w1: no venv; tpu_scripts/setup makes it\n" in done.stderr
  assert done.stderr.endswith("ended with status 1\n")


def test_logs(cloud):
  cloud.install()
  for home in cloud.workers():
    (home / "big_crop/log").write_text(f"a\nb\nc {home.name}\n")
  assert (
    cloud.run("logs", *TPU, "--lines", "1").stdout == "w0: c w0\nw1: c w1\n"
  )
  assert cloud.run("logs", *TPU, "--worker", "1").stdout.endswith("w1: c w1\n")
  one, two = cloud.calls()
  command = "bash big_crop/code/tpu_scripts/worker logs"
  assert one == ssh(f"{command} 1") and two == ssh(f"{command} 20", 1)
  cloud.run("logs", *TPU, "--follow", "--dry-run")
  follow = cloud.run("logs", *TPU, "--follow", "--dry-run").stdout
  assert "logs\\ 20\\ follow" in follow


def test_status_before_the_tpu_is_there(cloud):
  (cloud.path / "queue").write_text("PROVISIONING\n")
  assert cloud.run("status", *TPU).stdout == "PROVISIONING\n"
  assert len(cloud.calls()) == 1


# --- watch ---


def test_watch_goes_on_after_a_preemption(cloud):
  cloud.script(cloud.path / "bin/python3", PYTHON3)
  (cloud.path / "queue").unlink()
  for home in cloud.workers():
    (home / "plan").write_text("train\n")
  args = ["--type=v6e-8", "--spot", "--yes", "--poll=0.1", "--backoff=0"]
  watch = subprocess.Popen(
    [cloud.repo / "tpu_scripts/watch", *TPU, *args, "--", "python", *NASTY],
    env=cloud.env,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  try:
    argv = cloud.path / "w1/argv"
    wait_until(argv.exists)
    for home in cloud.workers():  # the machines go, and come back empty
      os.killpg(int((home / "big_crop/pid").read_text()), signal.SIGKILL)
      shutil.rmtree(home / "big_crop")
      (home / "plan").write_text("0")
    (cloud.path / "queue").write_text("SUSPENDED\n")
    out, _ = watch.communicate(timeout=40)
  finally:
    watch.kill()
  assert watch.returncode == 0, out
  assert out.endswith("done\n")
  verbs = [c[3] for c in cloud.calls() if c[3] in ("create", "delete")]
  assert verbs == ["create", "delete", "create"]
  cloud.wait_for_end()
  assert cloud.argvs(1) == [NASTY] * 2


def test_watch_ends_with_the_run(cloud):
  cloud.script(cloud.path / "bin/python3", PYTHON3)
  for home in cloud.workers():
    (home / "plan").write_text("2")
  args = [
    *TPU, "--type=v6e-8", "--yes", "--poll=0.1", "--max-restarts=3",
    "--", "python", "x",
  ]  # fmt: skip
  error = cloud.run("watch", *args, status=1).stderr
  assert "failed 2; tpu_scripts/logs shows why" in error


# --- GKE and Slurm ---


def gke(cloud, *flags, command=(*TRAIN, *NASTY), **kw):
  return cloud.run(
    "gke", "--name=run", "--image=host/image:tag",
    "--accelerator=tpu-v6e-slice", "--topology=4x8", *flags, "--", *command,
    **kw,
  )  # fmt: skip


@pytest.mark.parametrize("spot", [True, False])
def test_gke_manifest(cloud, spot):
  yaml = pytest.importorskip("yaml")
  flags = ["--spot", "--queue=q"] if spot else []
  out = gke(cloud, "--dry-run", *flags).stdout
  jobset = yaml.safe_load(out)
  assert jobset["kind"] == "JobSet" and jobset["metadata"]["name"] == "run"
  labels = jobset["metadata"]["labels"]
  assert labels == {"kueue.x-k8s.io/queue-name": "q" if spot else ""}
  job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert job["parallelism"] == job["completions"] == 8
  pod = job["template"]["spec"]
  label = "cloud.google.com/gke-"
  assert pod["nodeSelector"] == {
    f"{label}tpu-accelerator": "tpu-v6e-slice",
    f"{label}tpu-topology": "4x8",
  } | ({f"{label}spot": "true"} if spot else {})
  (container,) = pod["containers"]
  assert container["image"] == "host/image:tag"
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  # As Kubernetes does: $$ is $, and $(NAME) a variable.
  expand = lambda m: "$" if m[0] == "$$" else "expanded"
  command = [re.sub(r"\$\$|\$\(\w+\)", expand, a) for a in container["command"]]
  assert command == ["bash", "tpu_scripts/worker", "run", *TRAIN, *NASTY]
  rules = job["podFailurePolicy"]["rules"]
  assert rules[0]["onExitCodes"]["containerName"] == container["name"]


def test_gke_applies_what_it_prints(cloud):
  cloud.script(
    cloud.path / "bin/kubectl",
    '#!/bin/sh\n[ "$*" = "apply -f -" ] && cat >"$FAKE/applied" && exit $BAD\n',
  )
  printed = gke(cloud, "--dry-run").stdout
  assert not (cloud.path / "applied").exists()
  gke(cloud, BAD="0")
  assert (cloud.path / "applied").read_text() == printed
  error = gke(cloud, BAD="3", status=1).stderr
  assert error == "error: gke: kubectl apply ended with status 3\n"


@pytest.mark.parametrize(
  ("plan", "index", "status"),
  [
    ("finish", "0", 0),
    ("0", "0", 75),  # saved after a SIGTERM to another host: not the end
    ("0", "1", 0),  # the first worker speaks for all
    ("2", "0", 2),
    ("1", "1", 1),
    ("train", "0", 75),
  ],
)
def test_worker_in_a_container(cloud, plan, index, status):
  workdir = cloud.path / "run"
  workdir.mkdir()
  plan = f"finish {workdir}" if plan == "finish" else plan
  (cloud.path / "plan").write_text(plan)
  shutil.copy(cloud.path / "python", cloud.path / "bin/python")
  process = subprocess.Popen(
    [SCRIPTS / "worker", "run", *TRAIN, f"--workdir={workdir}"],
    env=cloud.env | {"JOB_COMPLETION_INDEX": index},
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline().startswith("step")
  if plan == "train":
    process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=20)
  assert process.returncode == status
  assert ("saved" in out) == (plan == "train")


@pytest.mark.parametrize(
  ("name", "args", "expected"),
  [
    (
      "slurm_study.sh",
      ["my study.py", "dir", "--retry_failed", "--allow_mixed"],
      [
        "python", "-m", "big_crop.study", "run", "--config", "my study.py",
        "--workdir", "dir", "--index", "7", "--retry_failed", "--allow_mixed",
      ],
    ),
    ("slurm_train.sh", NASTY, NASTY),
  ],
)  # fmt: skip
def test_slurm(cloud, name, args, expected):
  cloud.script(cloud.path / "bin/srun", GCLOUD)
  cloud.run(name, *args, SLURM_ARRAY_TASK_ID="7")
  assert cloud.calls() == [expected]
  cloud.run(name, status=2)


def test_settings_example_offers_what_exists(cloud):
  example = (SCRIPTS / "settings.example.sh").read_text()
  names = set(re.findall(r"BIG_CROP_TPU_(\w+)(?==)", example))
  assert len(names) >= 9
  flags = {n.lower().replace("_", "-") for n in names}
  helps = "".join(cloud.run(n, "--help").stdout for n in COMMANDS)
  assert {f for f in flags if f"--{f}" not in helps} == set()
