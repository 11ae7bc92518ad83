"""An experiment is started in a process of its own, as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax.errors import UsageError
from experiments import app

REPOSITORY = Path(__file__).parents[2]

GREET = '''\
"""Greets somebody."""

from absl import flags

from cnn_jax.errors import UsageError
from experiments import app

NAME = flags.DEFINE_string("name", "you", "Who is greeted.", module_name="Greeting")
MODES = ["hello", "usage", "interrupt", "crash", "full"]
MODE = flags.DEFINE_enum("mode", "hello", MODES, "A mode.", module_name="Greeting")
TIMES = flags.DEFINE_integer("times", 1, "How often.", lower_bound=1, module_name="Greeting")
CAPITALS = "In capitals, " + "very " * 10 + "loud."
LOUD = flags.DEFINE_bool("loud", False, CAPITALS, module_name="Voice")
TAGS = flags.DEFINE_multi_string("tag", ["a"], "A label.", module_name="Voice")
SIZES = flags.DEFINE_list("sizes", ["1", "2"], "Some sizes.")


def main(argv):
    if MODE.value == "usage":
        raise UsageError("no such name;\\n  take another")
    if MODE.value == "interrupt":
        raise KeyboardInterrupt
    if MODE.value == "crash":
        raise RuntimeError("a bug")
    if MODE.value == "full":
        raise ValueError("not saved") from OSError(28, "No space left on device", "runs/a/1")
    import jax

    print(f"hello {NAME.value} from {jax.process_index()} of {jax.process_count()}")


if __name__ == "__main__":
    app.run(main)
'''


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """start(*arguments) -> a started process of the experiment `greet`."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "greet.py").write_text(GREET)
    environment = os.environ | {"PYTHONPATH": f"{folder}:{REPOSITORY}", "COLUMNS": "70"}

    def start(*arguments, cwd=None, **more):
        command = [sys.executable, "-P", "-m", "greet", *arguments]
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--mode=usage", "no such name; take another"),
        ("--tims=2", "unknown flag '--tims'; did you mean '--times'?"),
        ("--times=0", "flag --times=0: 0 is not a positive integer"),
        ("Ann", "unexpected 'Ann'; flags are written --name=value"),
    ],
)
def test_an_error_of_use_is_one_line_and_status_2(start, argument, message):
    process = start(argument)
    output, errors = process.communicate()
    assert (process.returncode, output, errors) == (2, "", f"error: {message}\n")


def test_ctrl_c_is_status_130_without_a_traceback(start):
    process = start("--mode=interrupt")
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_a_full_disk_is_one_line_and_status_1(start):
    process = start("--mode=full")
    _, errors = process.communicate()
    line = "No space left on device for runs/a/1; make room and give the same command again, which"
    assert (process.returncode, errors) == (1, f"error: {line} goes on\n")


def test_other_flags_get_a_folder_beside_the_default_and_the_same_flags_theirs(tmp_path):
    default = tmp_path / "look"
    assert app.open_free_workdir(default, {"eps": 1}) == default
    assert app.open_free_workdir(default, {"eps": 2}) == tmp_path / "look_2"
    assert app.open_free_workdir(default, {"eps": 3}) == tmp_path / "look_3"
    assert app.open_free_workdir(default, {"eps": 2}) == tmp_path / "look_2"
    assert json.loads((default / "config.json").read_text()) == {"eps": 1}


def test_other_flags_are_refused_in_the_folder_that_is_named(tmp_path):
    app.open_free_workdir(tmp_path / "look", {"eps": 1}, named=True)
    with pytest.raises(UsageError, match="eps: 1 there, 2 here"):
        app.open_free_workdir(tmp_path / "look", {"eps": 2}, named=True)
    assert [each.name for each in tmp_path.iterdir()] == ["look"]


def test_any_other_exception_keeps_its_traceback(start):
    process = start("--mode=crash")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith("Traceback")
    assert errors.endswith("RuntimeError: a bug\n")


def test_help_groups_the_flags_by_section_and_wraps_them(start):
    process = start("--help")
    output, _ = process.communicate()
    assert process.returncode == 0
    paragraphs = output.split("\n\n")
    assert paragraphs[0] == "Greets somebody."
    assert paragraphs[2].splitlines() == [
        "Greeting:",
        "  --name=TEXT               Who is greeted. (default: you)",
        "  --mode=NAME               A mode. One of hello, usage, interrupt,",
        "                            crash, full. (default: hello)",
        "  --times=INT               How often. (default: 1)",
    ]
    assert paragraphs[3].splitlines() == [
        "Voice:",
        "  --[no]loud                In capitals, very very very very very very",
        "                            very very very very loud. (default: false)",
        "  --tag=TEXT                A label. May be repeated. (default: a)",
    ]
    assert [paragraph.splitlines()[0] for paragraph in paragraphs[4:7]] == [
        "Options:",
        "Your own code:",
        "Processes:",
    ]
    assert "grain_" not in output
    assert "verbosity" not in output


PLUGIN = """
from absl import flags

import cnn_jax

cnn_jax.register_recipe("mine", {"batch_size": 4})
flags.FLAGS["mode"].parser.enum_values.append("mine")
"""


def test_a_plugin_of_the_working_directory_is_imported_before_the_flags_are_read(start, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "cnn_jax.py").write_text("raise RuntimeError('shadowed')")
    process = start("--name", "Ann", "--mode=mine", "--plugin=mine", cwd=tmp_path)
    assert process.communicate() == ("hello Ann from 0 of 1\n", "")
    output, _ = start("--plugin", "mine", "--help", cwd=tmp_path).communicate()
    assert "Registered of your own, recipe: mine\n" in output


def test_a_plugin_that_is_not_there_is_named(start, tmp_path):
    process = start("--plugin=mine", cwd=tmp_path)
    output, errors = process.communicate()
    assert (process.returncode, output) == (2, "")
    assert errors.startswith("error: cannot import mine for --plugin=mine: No module named 'mine'")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--coordinator_address=auto"], "Open MPI 4"),
        (
            ["--coordinator_address=localhost:1", "--num_processes=2", "--process_id=2"],
            "processes count from 0",
        ),
    ],
)
def test_a_process_that_cannot_join_the_others_says_why_in_a_line(start, flags, what):
    process = start(*flags)
    errors = process.communicate()[1]
    assert process.returncode == 2
    assert errors.startswith("error: cannot join the other processes (")
    assert what in errors
    assert errors.count("\n") == 1


def test_processes_find_each_other(start):
    import portpicker

    flags = ["--name=Ann", f"--coordinator_address=localhost:{portpicker.pick_unused_port()}"]
    flags += ["--num_processes=2"]
    processes = [start(*flags, f"--process_id={number}") for number in range(2)]
    assert [process.communicate(timeout=60)[0] for process in processes] == [
        "hello Ann from 0 of 2\n",
        "hello Ann from 1 of 2\n",
    ]


SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "{}",
    "SLURM_LOCALID": "{}",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "{}",
    "OMPI_COMM_WORLD_LOCAL_RANK": "{}",
}


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [SLURM, OPEN_MPI], ids=["SLURM", "Open MPI"])
def test_processes_of_a_cluster_are_told_by_it_who_they_are(start, cluster):
    processes = [
        start(
            "--coordinator_address=auto",
            **{name: value.format(number) for name, value in cluster.items()},
        )
        for number in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == [
        "hello you from 0 of 2\n",
        "hello you from 1 of 2\n",
    ]


@pytest.mark.parametrize(
    ("name", "flag"),
    [("demo", "--layers=stem"), ("ascent", "--image=x.png"), ("embedding", "--examples=3")],
)
def test_a_flag_that_the_command_would_not_read_is_refused(name, flag):
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", flag],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: unknown flag '{flag.split('=')[0]}'")


def test_a_folder_of_a_version_without_a_flag_is_that_of_its_default(tmp_path):
    class Flag:
        default = 8

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.flags, "FLAGS", {"examples": Flag})
        app.open_workdir(tmp_path / "run", {"seed": 0})
        app.open_workdir(tmp_path / "run", {"seed": 0, "examples": 8})
        with pytest.raises(UsageError, match="examples: 8 there, 9 here"):
            app.open_workdir(tmp_path / "run", {"seed": 0, "examples": 9})
