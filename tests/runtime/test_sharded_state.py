"""A state that is spread over the devices: the same numbers, in less memory, saved in pieces."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cnn_jax import trained
from cnn_jax.data import datasets
from cnn_jax.errors import UsageError
from cnn_jax.programs import plan
from cnn_jax.runtime import parallel
from cnn_jax.training import checkpoint, loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.plan import plan_step

CONFIG = TrainConfig(
    model="lenet5",
    model_options="filters=(4,), neurons=(512,)",
    dataset="digits",
    optimizer="adamw",
    learning_rate=0.003,
    clip_norm=1.0,
    steps=12,
    batch_size=32,
    checkpoint_every=100,
    log_every=2,
    ema_decay=0.9,
    shard_state=True,
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("digits", folder)
    return str(folder)


@pytest.fixture(scope="module")
def config(data_dir):
    return dataclasses.replace(CONFIG, data_dir=data_dir)


@pytest.fixture(scope="module")
def spread(config, tmp_path_factory):
    """The folder of a run on eight devices."""
    workdir = tmp_path_factory.mktemp("spread")
    loop.train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The folder of the same run with the whole state on each of eight devices."""
    workdir = tmp_path_factory.mktemp("whole")
    loop.train(dataclasses.replace(config, shard_state=False), workdir)
    return workdir


def parameters(workdir):
    found = checkpoint.load(checkpoint.checkpoint_directory(workdir))
    return {name: found.state[name] for name in ("params", "batch_stats", "ema")}


def assert_same_but_for_rounding(workdir, other):
    for got, want in zip(
        jax.tree.leaves(parameters(workdir)), jax.tree.leaves(parameters(other)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_the_longest_axis_that_divides_is_spread_and_small_arrays_are_not():
    mesh = parallel.data_mesh()
    cases = {
        (3, 3, 64, 128): PartitionSpec(None, None, None, "data"),
        (512, 1001): PartitionSpec("data"),
        (1001, 1001): PartitionSpec(),
        (64,): PartitionSpec(),
        (): PartitionSpec(),
    }
    assert {shape: parallel.state_sharding(shape, mesh).spec for shape in cases} == cases


def test_training_gives_the_numbers_of_a_state_that_is_whole(spread, whole):
    assert_same_but_for_rounding(spread, whole)


def test_the_network_of_such_a_run_is_read_on_one_device(spread):
    model = trained.from_workdir(spread)
    want = parameters(spread)["ema"]["params"]
    jax.tree.map(np.testing.assert_array_equal, model.variables["params"], want)


IN_PIECES, ON_TWO, WHOLE = (8, True), (2, True), (1, False)


@pytest.mark.parametrize(
    ("begun", "ended"), [(IN_PIECES, ON_TWO), (IN_PIECES, WHOLE), (WHOLE, IN_PIECES)]
)
def test_a_run_goes_on_with_another_number_of_devices(config, whole, tmp_path, begun, ended):
    def stop_at_six(step, metrics):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    def train(way, progress):
        devices, shard_state = way
        over = dataclasses.replace(config, shard_state=shard_state)
        return loop.train(over, tmp_path, progress, jax.devices()[:devices])

    stopped = train(begun, loop.Callbacks(update=stop_at_six))
    assert 6 <= stopped.step < 12
    said = []
    assert train(ended, loop.Callbacks(say=said.append)).step == 12
    assert said[0] == f"resuming from step {stopped.step}"
    assert_same_but_for_rounding(tmp_path, whole)


def test_each_device_holds_a_piece_and_saving_does_not_gather(tmp_path, monkeypatch):
    sharding = NamedSharding(parallel.data_mesh(), PartitionSpec(None, "data"))
    numbers = np.random.default_rng(0).normal(size=(5, 1024)).astype(np.float32)
    state = {"kernel": jax.device_put(numbers, sharding), "bias": np.ones(3, np.float32)}
    fetched = []
    fetch = checkpoint._fetch
    monkeypatch.setattr(checkpoint, "_fetch", lambda x: fetched.append(x.shape) or fetch(x))
    manager = checkpoint.open_checkpoints(tmp_path)
    checkpoint.save(manager, 1, state, {})
    restored, _ = checkpoint.restore(manager, state)
    checkpoint.finish(manager)
    assert fetched == [(3,)]
    assert restored["kernel"].sharding == sharding
    np.testing.assert_array_equal(restored["kernel"], numbers)


@pytest.mark.parametrize("shape", [(), (7,), (4, 6), (3, 5, 8)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_sum_of_an_array_is_that_of_its_pieces_and_any_bit_changes_it(shape, dtype):
    random = np.random.default_rng(0)
    array = random.integers(-100, 100, shape).astype(jax.numpy.dtype(dtype))
    whole = checkpoint._sum(array, (slice(None),) * array.ndim, shape)
    if shape:
        cut = shape[-1] // 2
        halves = [
            (*[slice(None)] * (len(shape) - 1), part) for part in (slice(cut), slice(cut, None))
        ]
        total = sum(checkpoint._sum(array[half], half, shape) for half in halves)
        assert total % 2**64 == whole
    flipped = array.copy()
    flipped.reshape(-1).view(np.uint8)[-1] ^= 1
    assert checkpoint._sum(flipped, (slice(None),) * array.ndim, shape) != whole


def test_the_plan_of_such_a_step_holds_an_eighth():
    options = {"model": "lenet5", "batch_size": 16, "model_options": "neurons=(1024,)"}
    found = {}
    for shard_state in (False, True):
        config = TrainConfig(**options, shard_state=shard_state)
        over = parallel.choose("jit", shard_state)
        step = plan_step(config, over.gather)
        lowered = plan.lower_step(step.step, step.state, step.batch, jax.devices(), shard_state)
        found[shard_state] = plan.compile_for_account(lowered)
    assert found[True]["argument_bytes"] < found[False]["argument_bytes"] / 4
    assert found[True]["peak_bytes"] < found[False]["peak_bytes"]
    assert "all-gather" in found[True]["collectives"]


def test_pmap_does_not_spread_the_state(config, tmp_path):
    with pytest.raises(UsageError, match="--shard_state spreads the state by jit, --parallel=pmap"):
        loop.train(dataclasses.replace(config, parallel="pmap"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
