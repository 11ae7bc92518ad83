"""What a run's seconds went to, over all of its starts."""

import json
import time

import pytest

from cnn_jax.training import goodput


def start(first, last, **seconds):
    return {"from_step": first, "to_step": last, "seconds": seconds}


def test_updates_that_were_made_again_are_no_goodput():
    killed = start(0, 30, starting=2.0, compilation=5.0, step=30.0, saving=1.0)
    resumed = start(20, 40, starting=2.0, restoring=1.0, step=19.0)
    found = goodput.account([killed, resumed])
    assert found["repeated"] == 10
    assert found["causes"]["repeated updates"] == pytest.approx(10.0)
    assert found["causes"]["update"] == pytest.approx(39.0)
    assert found["seconds"] == pytest.approx(60.0)
    assert found["goodput"] == pytest.approx(0.65)
    assert found["starts"] == 2
    assert goodput.line(found) == (
        "65% of 60.0 s; repeated updates 10.0 s, compilation 5.0 s, starting 4.0 s, saving 1.0 s, "
        "restoring 1.0 s"
    )


def test_of_a_start_that_was_lost_whole_nothing_stands():
    found = goodput.account(
        [start(0, 30, step=30.0), start(0, 10, step=10.0), start(0, 40, step=40.0)]
    )
    assert found["repeated"] == 40
    assert found["causes"]["update"] == pytest.approx(40.0)


def test_the_seconds_of_all_starts_are_kept_and_add_up(tmp_path):
    for first in (0, 3):
        began = time.perf_counter()
        clock = goodput.Clock(tmp_path, True, began)
        clock.goes_on_from(first)
        for step in range(first, first + 3):
            clock.begin("input", step)
            clock.begin("step", step)
            time.sleep(0.01)
        clock.begin("ended", first + 3)
        starts = clock.keep()
        own = sum(starts[-1]["seconds"].values())
        assert 0.03 <= own <= time.perf_counter() - began
    assert json.loads((tmp_path / goodput.FILE).read_text()) == starts
    found = goodput.account(starts)
    assert (found["starts"], found["repeated"]) == (2, 0)
    assert found["causes"]["update"] >= 0.06


def test_a_file_of_no_use_stops_no_run(tmp_path):
    (tmp_path / goodput.FILE).write_text("[{")
    assert len(goodput.Clock(tmp_path, True, time.perf_counter()).keep()) == 1
