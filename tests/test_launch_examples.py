"""The files to copy for clusters: what can be checked of them without one."""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from absl import flags

from experiments import app  # noqa: F401, whose flags they use

FOLDER = Path(__file__).parents[1] / "examples" / "launch"
SCRIPTS = ("slurm.sbatch", "mpi.sh", "tpu_pod.sh")


def flags_of(text):
    words = shlex.split(text, comments=True)
    return {word[2:].partition("=")[0] for word in words if word.startswith("--")}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_read_by_bash(name):
    checked = subprocess.run(["bash", "-n", FOLDER / name], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    told = "train --coordinator_address=auto" in (FOLDER / name).read_text()
    assert told == (name != "mpi.sh")


def test_without_what_it_needs_a_script_says_what(tmp_path):
    for name, missing in zip(
        SCRIPTS, ("start it by sbatch", "the file of hosts", "the pod"), strict=True
    ):
        done = subprocess.run(
            ["bash", FOLDER / name], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
        )
        assert done.returncode != 0
        assert missing in done.stderr


def test_processes_of_open_mpi_get_their_numbers_and_the_callers_flags_whole(tmp_path):
    """By an mpirun that starts the second of two processes."""
    (tmp_path / "hosts.txt").write_text("# GPUs\n\nnode1 slots=1\nnode2 slots=1\n")
    for name, text in {
        "mpirun": '[ "$1 $2 $3 $4" = "--hostfile hosts.txt --bind-to none" ] || exit 9\n'
        "shift 4\nexport OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2\n"
        'OMPI_COMM_WORLD_LOCAL_RANK=0 "$@"\n',
        "launch.sh": 'echo "GPU $JAX_CUDA_VISIBLE_DEVICES"\nfor each; do echo "$each"; done\n',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", FOLDER / "mpi.sh", "hosts.txt", "--model_options=depth=8, bias=True"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert done.stdout.splitlines() == [
        "GPU 0",
        "train",
        "--coordinator_address=node1:8476",
        "--num_processes=2",
        "--process_id=1",
        "--model_options=depth=8, bias=True",
    ], done.stderr


def test_the_pod_gets_the_callers_flags_whole(tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text('#!/bin/sh\nfor each; do echo "$each"; done\n')
    gcloud.chmod(0o755)
    done = subprocess.run(
        ["bash", FOLDER / "tpu_pod.sh", "--model_options=depth=8, bias=True"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TPU": "pod", "ZONE": "zone"},
    )
    command = done.stdout.splitlines()[-1].removeprefix("--command=")
    assert shlex.split(command)[-1] == "--model_options=depth=8, bias=True"


def test_the_jobset_has_a_number_for_each_of_its_processes():
    jobset = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    [workers] = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    [container] = job["template"]["spec"]["containers"]
    command = container["command"][-1]
    name = jobset["metadata"]["name"]
    first = f"{name}-{workers['name']}-0-0.{name}"
    port = container["ports"][0]["containerPort"]
    assert f"--coordinator_address={first}:{port}" in command
    assert f"--num_processes={job['completions']}" in command
    assert job["completions"] == job["parallelism"]
    assert '--process_id="$JOB_COMPLETION_INDEX"' in command
    own = {"coordinator_address", "num_processes", "process_id"}
    assert own < flags_of(command)
    assert own < set(flags.FLAGS)
