"""The scripts against a stand-in gcloud whose two workers are folders.

The stand-in records its arguments. It runs a worker's commands under bash with
that worker's folder as HOME, as ssh would. Its status is not 0 if any worker's
is not, like gcloud's (googlecloudsdk/command_lib/compute/tpus/tpu_vm).
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

TOOLS = ("bash", "git", "tar", "flock", "setsid", "comm", "awk", "ps")
needs_tools = pytest.mark.skipif(
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
    self.env["PYTHONPATH"] = str(SCRIPTS.parent)  # for big_crop itself
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
    """The calls recorded since `calls` was last called."""
    calls = []
    for path in sorted((self.path / "calls").iterdir()):
      calls.append(path.read_text().split("\0")[:-1])
      path.unlink()
    return calls

  def workers(self):
    return [self.path / "w0", self.path / "w1"]

  def install(self, *plan):
    """Makes workers as after `setup`; `plan` says what python will do."""
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


@pytest.fixture(name="cloud")
def cloud_fixture(tmp_path):
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
