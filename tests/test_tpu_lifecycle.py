"""TPUs are created, found and deleted; flags, dry runs and errors."""

import os
import pty
import re
import subprocess

import pytest
from tpu_cloud import (
  NASTY,
  PLACE,
  SCRIPTS,
  TPU,
  TRAIN,
  cloud_fixture,  # noqa: F401
  needs_tools,
)

pytestmark = needs_tools


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


def test_settings_example_offers_what_exists(cloud):
  example = (SCRIPTS / "settings.example.sh").read_text()
  names = set(re.findall(r"BIG_CROP_TPU_(\w+)(?==)", example))
  assert len(names) >= 9
  flags = {n.lower().replace("_", "-") for n in names}
  helps = "".join(cloud.run(n, "--help").stdout for n in COMMANDS)
  assert {f for f in flags if f"--{f}" not in helps} == set()
