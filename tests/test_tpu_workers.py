"""What runs on the workers: sync, setup, launch, stop, logs, status, watch."""

import os
import shutil
import signal
import subprocess

import pytest
from tpu_cloud import (
  NASTY,
  PLACE,
  PYTHON3,
  TPU,
  TRAIN,
  cloud_fixture,  # noqa: F401
  needs_tools,
  ssh,
  wait_until,
)

pytestmark = needs_tools


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
  (cloud.repo / "gone.py").unlink()  # still in git's index

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
      f"-r {base}/code/requirements.txt "
      f"-r {base}/code/requirements-gs.txt jax[tpu] "
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
    for home in cloud.workers():  # machines are replaced by empty ones
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
