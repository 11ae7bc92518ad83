"""Processes that work together end together, with a line that names the one that was lost."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import portpicker
import pytest

from cnn_jax.runtime import peers
from cnn_jax.runtime.peers import Member, Status

REPOSITORY = Path(__file__).parents[2]

WORK = '''\
"""Adds up numbers in all processes, until one of them goes wrong."""

import os
import signal
import sys
import time

from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.runtime import peers
from experiments import app

WRONG = flags.DEFINE_string("wrong", "", "What goes wrong.")
WHO = flags.DEFINE_integer("who", 0, "Where.")


def main(argv):
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    for step in range(3 if WRONG.value == "nothing" else 10**6):
        peers.at("input", step)
        if step == 5 and jax.process_index() == WHO.value:
            if WRONG.value == "hang":
                time.sleep(1000)
            if WRONG.value == "throw":
                raise ValueError("no such number")
            if WRONG.value == "usage":
                raise UsageError("a file is missing; put it there")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[WRONG.value])
        peers.at("step", step)
        multihost_utils.process_allgather(np.ones(3))
    if jax.process_index() == WHO.value:
        time.sleep(4)  # longer than the others would be waited for
    print("done")


if __name__ == "__main__":
    app.run(main)
'''


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """start(number, of, port, *flags) -> a started process of the experiment above."""
    folder = tmp_path_factory.mktemp("peers")
    (folder / "work.py").write_text(WORK)
    environment = os.environ | {"PYTHONPATH": f"{folder}:{REPOSITORY}", "XLA_FLAGS": ""}

    def start(number, of, port, *flags):
        command = [sys.executable, "-P", "-m", "work", f"--coordinator_address=localhost:{port}"]
        command += [f"--num_processes={of}", f"--process_id={number}", *flags]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    return start


LOST = {
    "kill": "died",
    "stop": "has not answered for ",
    "hang": "kept the others waiting for ",
    "throw": "failed (ValueError: no such number), last heard of at step 5",
    "usage": "failed (a file is missing; put it there), last heard of at step 5",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "who"), [*((wrong, 1) for wrong in LOST), ("kill", 0), ("stop", 0)]
)
def test_a_process_that_is_lost_ends_the_others_with_a_line_that_names_it(start, wrong, who):
    port = portpicker.pick_unused_port()
    flags = [f"--wrong={wrong}", f"--who={who}", "--peer_timeout=3"]
    both = [start(number, 2, port, *flags) for number in range(2)]
    try:
        _, errors = both[1 - who].communicate(timeout=120)
        host = "localhost" if who == 0 and wrong != "throw" else f"pid {both[who].pid}"
        lines = errors.splitlines()
        line = lines[-1]
        # JAX has words of its own about process 0, to which it talks
        assert len(lines) == 1 or (wrong, who) == ("kill", 0), errors
        assert line.startswith(f"error: process {who} of 2 (")
        assert host in line
        assert LOST[wrong] in line
        assert ("the same command goes on from its last checkpoint" in line) == (wrong != "usage")
        assert both[1 - who].returncode == 1
        if wrong == "throw":
            assert both[who].communicate(timeout=60)[1].endswith("ValueError: no such number\n")
            assert both[who].returncode == 1
        if wrong == "usage":
            said = both[who].communicate(timeout=60)[1]
            assert said == "error: a file is missing; put it there\n"
            assert both[who].returncode == 2
    finally:
        for process in both:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_processes_that_end_one_after_the_other_end_well(start, who):
    port = portpicker.pick_unused_port()
    flags = ["--wrong=nothing", f"--who={who}", "--peer_timeout=2"]
    both = [start(number, 2, port, *flags) for number in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert (output.splitlines()[-1], errors) == ("done", "")
    assert [process.returncode for process in both] == [0, 0]


@pytest.mark.slow
def test_who_comes_too_late_is_not_waited_for_longer_than_asked(start):
    port = portpicker.pick_unused_port()
    first = start(0, 2, port, "--wrong=nothing", "--initialization_timeout=4")
    begun = time.monotonic()
    _, errors = first.communicate(timeout=120)
    assert time.monotonic() - begun < 60
    assert first.returncode == 2
    assert errors.splitlines()[-1].startswith(
        "error: the processes did not come together within 4 s"
    )


def members(*counts, first=False, phase="input", moved=0.0):
    return {
        index: Member(f"process {index}", 100.0, moved, Status(phase, 7, count, first))
        for index, count in enumerate(counts)
    }


def test_the_process_that_the_others_wait_for_is_the_one_with_the_fewest_phases():
    assert peers.behind(members(9, 7, 9), now=31.0, timeout=30.0) == (1, 31.0)
    assert peers.behind(members(9, 8, 7), now=31.0, timeout=30.0) == (2, 31.0)


def test_nobody_is_late_before_the_time_or_where_all_do_the_same():
    assert peers.behind(members(9, 7), now=29.0, timeout=30.0) is None
    assert peers.behind(members(9, 9), now=1000.0, timeout=30.0) is None


def test_who_has_ended_waits_for_nobody():
    there = members(9, 7)
    there[0].status.phase = peers.END
    assert peers.behind(there, now=1000.0, timeout=30.0) is None


def test_what_is_done_for_the_first_time_compiles_and_may_take_longer():
    assert peers.behind(members(9, 7, first=True), now=500.0, timeout=30.0) is None
    assert peers.behind(members(9, 7, first=True), now=601.0, timeout=30.0) == (1, 601.0)


def test_a_process_whose_input_holds_the_others_up_is_named_with_its_share():
    there = members(9, 9, 9)
    for index, waited in enumerate((1.0, 8.0, 1.2)):
        there[index].status = Status("step", 10, 20, False, waited)
    assert peers.slow(there, seconds=10.0) == (
        1,
        "its input takes 0.80 s of a step's 1.00 s, that of the others 0.11 s",
    )
    there[1].status.waited = 1.3
    assert peers.slow(there, seconds=10.0) is None


def test_what_else_connects_to_the_port_is_turned_away_and_the_processes_are_watched_on(
    monkeypatch,
):
    ending, said, ends = threading.Event(), [], []
    monkeypatch.setattr(peers, "_ending", ending)
    monkeypatch.setattr(peers, "_end", lambda line, say: (ends.append(line), ending.set()))
    listener = socket.create_server(("localhost", 0))
    peers._lead(listener, "secret", "process 0 of 2", 30.0, said.append)
    try:
        for stranger in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": 1, "name": "me"}\n'):
            with socket.create_connection(listener.getsockname(), 10) as link:
                link.sendall(stranger)
                assert link.recv(1) == b""
        with socket.create_connection(listener.getsockname(), 10) as link:
            hello = {"secret": "secret", "process": 1, "name": "process 1 of 2"}
            link.sendall(json.dumps(hello).encode() + b"\n")
            assert json.loads(link.makefile().readline())["status"]["phase"] == peers._status.phase
        assert ending.wait(10)
        assert ends[0].startswith("process 1 of 2 died")
    finally:
        ending.set()
        listener.close()
