"""Cores by affinity and by quota."""

import os
import subprocess
import sys

import pytest

from cnn_jax.benchmark import inputs
from cnn_jax.data import pipeline
from cnn_jax.runtime.cores import cores

COUNT = "from cnn_jax.runtime.cores import cores; print(cores())"


def write(root, **files):
    for place, text in files.items():
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def eight(monkeypatch):
    """A process that may run on eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_a_quota_counts_where_it_is_less_than_the_affinity(eight, tmp_path, files, count):
    write(tmp_path, **files)
    assert cores(tmp_path) == count


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone binds to cores")
def test_a_process_that_is_bound_to_a_core_counts_one():
    core = min(os.sched_getaffinity(0))
    bound = f"import os; os.sched_setaffinity(0, {{{core}}}); {COUNT}"
    run = subprocess.run([sys.executable, "-c", bound], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"


def test_the_input_and_its_benchmark_take_a_thread_for_each_core_that_they_may_use(monkeypatch):
    for module in (pipeline, inputs):
        monkeypatch.setattr(module, "cores", lambda: 3)
    asked = []
    monkeypatch.setattr(pipeline.grain, "ReadOptions", lambda **given: asked.append(given))
    batches = pipeline.grain.MapDataset.range(4).batch(2)
    pipeline.iterate(batches, None)
    assert asked == [{"num_threads": 3, "prefetch_buffer_size": 4}]
    assert inputs.workers(inputs.Spec("train")) == 3
