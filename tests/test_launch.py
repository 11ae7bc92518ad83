"""launch.sh in a copy of the project whose Python is a stand-in that notes what it is asked for."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OK = 0
ERROR_OF_USE = 2

# venv makes a folder with the stand-in in it, pip does nothing (or fails), an experiment says how
# it was started and then does what its flags say.
STAND_IN = f"""\
#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$*" in
  --version) echo "Python ${{STAND_IN_VERSION:-3.12.0}}" ;;
  "-m venv"*) mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" ;;
  "-m pip"*)
    sleep "${{PIP_SECONDS:-0}}"
    [[ -z ${{PIP_ERROR:-}} ]] || {{ echo "ERROR: $PIP_ERROR"; exit 1; }} ;;
  "-P -m sphinx"*) echo "sphinx ${{*: -2}} in $PWD" ;;
  "-m pytest"*) echo "pytest ${{*:3}} in $PWD" ;;
  "-P -m experiments."*)
    echo "${{3#experiments.}} ${{*:4}} in $PWD"
    case "$*" in
      *"--tunables"*) echo "$GLIBC_TUNABLES" ;;
      *"--second_fails"*"--process_id=1") exit 7 ;;
      *"--ignore_term"*) trap "" TERM; for ((i = 0; i < 600; i++)); do sleep 0.1; done ;;
      *"--hang"* | *"--second_fails"*) exec sleep 60 ;;
    esac ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """The folder of a project without an environment."""
    folder = tmp_path / "project with a blank"
    for name in ("launch.sh", "pyproject.toml", "requirements", "cnn_jax/errors.py"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, target)
    (folder / "experiments").mkdir()
    for name in ("__init__", "app", "demo", "evaluate", "train"):
        (folder / f"experiments/{name}.py").touch()
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    return folder


@pytest.fixture
def start(project, tmp_path):
    """start(*arguments, **environment) -> a started launch.sh, from outside the project."""

    def start(*arguments, **environment):
        settings = {
            "PYTHON": str(tmp_path / "python"),
            "CALLS": str(tmp_path / "calls"),
            "CNN_JAX_DEVICE": "cpu",
        }
        # bash cannot trap what it was started to ignore, as in the background of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            [project / "launch.sh", *arguments],
            cwd=tmp_path,
            env=os.environ | settings | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def launch(start):
    """launch(*arguments, **environment) -> (status, stdout, stderr) of launch.sh."""

    def launch(*arguments, **environment):
        process = start(*arguments, **environment)
        output, errors = process.communicate(timeout=30)
        return process.returncode, output, errors

    return launch


@pytest.fixture
def installs(tmp_path):
    """installs() -> "venv" and the installed lock's name for each done since the last call."""

    def installs():
        calls = tmp_path / "calls"
        lines = calls.read_text().splitlines()
        calls.write_text("")
        made = ["venv" for line in lines if line.startswith("-m venv --clear")]
        return made + [Path(line).stem for line in lines if " -r " in line]

    return installs


def test_setup_makes_the_environment_once_and_is_silent_afterwards(launch, installs):
    status, output, errors = launch("setup")
    assert (status, output) == (OK, "")
    assert errors == "setting up .venv: Python 3.12.0, JAX for cpu; a few minutes, once\n"
    assert installs() == ["venv", "cpu"]
    assert launch("setup") == (OK, "", "")
    assert installs() == []


def test_a_changed_lock_is_installed_into_the_same_environment(launch, installs, project):
    launch("setup")
    installs()
    with (project / "requirements/cpu.txt").open("a") as lock:
        lock.write("another==1.0\n")
    launch("setup")
    assert installs() == ["cpu"]


@pytest.mark.parametrize("change", [{"CNN_JAX_DEVICE": "cuda"}, {"STAND_IN_VERSION": "3.13.0"}])
def test_another_device_or_python_gets_a_new_environment(launch, installs, change):
    launch("setup")
    installs()
    launch("setup", **change)
    assert installs() == ["venv", change.get("CNN_JAX_DEVICE", "cpu")]


def test_a_moved_project_gets_a_new_environment(launch, installs, project, tmp_path):
    launch("setup")
    installs()
    project.rename(tmp_path / "elsewhere")
    project.symlink_to(tmp_path / "elsewhere")
    launch("setup")
    assert installs() == ["venv", "cpu"]


def test_another_projects_environment_is_not_emptied_through_a_link(launch, project, tmp_path):
    launch("setup")
    other = (project / ".venv").rename(tmp_path / "other")
    stamp = (other / "stamp").read_text()
    (other / "stamp").write_text(stamp.replace(str(project), str(tmp_path / "another project")))
    (project / ".venv").symlink_to(other)
    status, output, errors = launch("setup")
    assert (status, output) == (ERROR_OF_USE, "")
    assert errors.endswith(
        "is a link to another project's environment; remove the link, and try again\n"
    )
    assert (other / "bin/python").exists()


def test_a_failed_set_up_says_why_and_is_done_anew(launch, installs):
    status, output, errors = launch("setup", PIP_ERROR="no network")
    assert (status, output) == (ERROR_OF_USE, "")
    assert errors.splitlines()[1].startswith(
        "error: pip failed, is the network up? ERROR: no network (all of it: "
    )
    installs()
    assert launch("setup")[0] == OK
    assert installs() == ["venv", "cpu"]


def test_of_two_set_ups_at_once_one_installs_and_the_other_waits(start, installs):
    processes = [start("setup", PIP_SECONDS="0.5") for _ in range(2)]
    assert [process.wait(timeout=30) for process in processes] == [OK, OK]
    assert installs() == ["venv", "cpu"]


def test_a_running_experiment_does_not_hold_the_set_up_back(start, launch, installs):
    process = start("train", "--hang")
    assert process.stdout.readline().startswith("train")
    assert launch("setup", STAND_IN_VERSION="3.13.0")[0] == OK
    process.terminate()
    process.wait()


@pytest.mark.parametrize("python", ["/no/python", "/bin/false"])
def test_without_a_suitable_python_nothing_is_made(launch, project, python):
    message = (
        f"error: PYTHON={python} is no Python 3.11 or newer; install it, or name another one by "
        "PYTHON=/path/to/python3\n"
    )
    assert launch("setup", PYTHON=python) == (ERROR_OF_USE, "", message)
    assert not (project / ".venv").exists()


def test_a_python_without_venv_names_the_package_to_install(launch, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n')
    bare.chmod(0o755)
    status, _, errors = launch("setup", PYTHON=str(bare))
    assert status == ERROR_OF_USE
    assert errors.startswith(f"error: {bare} has no venv or ensurepip (Debian, Ubuntu: apt install")


def test_an_unknown_device_is_an_error(launch):
    assert launch("setup", CNN_JAX_DEVICE="npu") == (
        ERROR_OF_USE,
        "",
        "error: unknown CNN_JAX_DEVICE=npu; take cpu, cuda or tpu\n",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error(launch, project):
    project.chmod(0o555)
    status, _, errors = launch("setup")
    project.chmod(0o755)
    assert (status, errors[:22]) == (ERROR_OF_USE, "error: cannot write to")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("trian", "did you mean 'train'?"), ("xyz", "known: demo, evaluate, train")],
)
def test_an_unknown_experiment_is_an_error_before_any_set_up(launch, installs, name, hint):
    expected = f"error: unknown experiment '{name}'; {hint}\n"
    assert launch(name) == (ERROR_OF_USE, "", expected)
    assert installs() == []


def test_an_experiment_runs_in_the_callers_folder_with_its_flags(launch, tmp_path):
    status, output, _ = launch("train", "--workdir=runs/a b", "--steps=3")
    assert (status, output) == (OK, f"train --workdir=runs/a b --steps=3 in {tmp_path}\n")


def test_memory_comes_in_large_pages_unless_told_otherwise(launch):
    _, output, _ = launch("train", "--tunables", GLIBC_TUNABLES="")
    assert output.splitlines()[1] == "glibc.malloc.hugetlb=1"
    _, output, _ = launch("train", "--tunables", GLIBC_TUNABLES="glibc.malloc.arena_max=2")
    assert output.splitlines()[1] == "glibc.malloc.arena_max=2"


def test_demo_writes_under_runs_unless_told_otherwise(launch, project, tmp_path):
    _, output, _ = launch("demo", "--seed=1")
    assert output == f"demo --workdir={project}/runs/demo --seed=1 in {tmp_path}\n"


def test_test_runs_pytest_in_the_project(launch, project):
    workers = "--numprocesses=2 --dist=worksteal"
    assert launch("test", "-k", "name")[1] == f"pytest {workers} -k name in {project}\n"


def test_docs_installs_the_sites_generator_when_first_called(launch, installs, project):
    launch("setup")
    installs()
    for expected in (["docs"], []):
        status, output, _ = launch("docs")
        assert status == OK
        assert output.splitlines() == [
            f"sphinx docs build/docs in {project}",
            "documents: build/docs/index.html",
        ]
        assert installs() == expected


def test_without_arguments_it_says_how_it_is_used(launch, project):
    status, output, errors = launch()
    assert (status, errors) == (OK, "")
    assert "experiments: demo evaluate train\n" in output
    assert not (project / ".venv").exists()


def test_processes_are_told_of_each_other(launch):
    status, output, _ = launch("--processes=2", "train", "--steps=3")
    assert status == OK
    lines = sorted(output.splitlines(), key=lambda line: line.split("--process_id=")[1])
    for number, line in enumerate(lines):
        assert line.startswith("train --steps=3 --coordinator_address=localhost:")
        assert f"--num_processes=2 --process_id={number} in" in line


def test_the_first_process_that_fails_ends_the_others_and_gives_the_status(launch):
    started = time.monotonic()
    assert launch("--processes=2", "train", "--second_fails")[0] == 7
    assert time.monotonic() - started < 20


def test_a_process_that_ignores_the_end_is_killed_after_a_while(launch):
    flags = ["--second_fails", "--ignore_term"]
    assert launch("--processes=2", "train", *flags, CNN_JAX_GRACE_SECONDS="1")[0] == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_ends_every_process(start, number):
    process = start("--processes=2", "train", "--hang")
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=30)  # returns when no process holds the pipe any more
    assert process.returncode == 128 + number


def test_a_senseless_number_of_processes_is_an_error(launch):
    assert launch("--processes=0", "train") == (
        ERROR_OF_USE,
        "",
        "error: --processes=0 is no number of processes\n",
    )
