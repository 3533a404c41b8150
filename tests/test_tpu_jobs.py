"""GKE manifests and Slurm jobs."""

import re
import shutil
import signal
import subprocess

import pytest
from tpu_cloud import (
  GCLOUD,
  NASTY,
  SCRIPTS,
  TRAIN,
  cloud_fixture,  # noqa: F401
  needs_tools,
)

pytestmark = needs_tools


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
    ("0", "0", 75),  # another host got the SIGTERM: saved, but not finished
    ("0", "1", 0),  # the first worker decides
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
