import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnn_jax.errors import UsageError
from cnn_jax.training import checkpoint

REPOSITORY = Path(__file__).parents[2]


class State(NamedTuple):
    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    ema: dict | None
    key: jax.Array


OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=1e-4))


def make_state(seed=0, features=4, optimizer=OPTIMIZER):
    random_numbers = np.random.default_rng(seed)

    def normal(*shape, dtype=np.float32):
        return jnp.asarray(random_numbers.normal(size=shape).astype(dtype))

    params = {
        "conv1": {"kernel": normal(3, 3, 2, features)},
        "head": {"kernel": normal(features, 10, dtype=jnp.bfloat16), "bias": normal(10)},
        "hidden": {"kernel": normal(64, 32)},
        "unused": normal(0, 3),
    }
    return State(
        step=jnp.asarray(np.int32(seed)),
        params=params,
        batch_stats={"norm1": {"mean": normal(features) * 1e-42, "var": normal(features)}},
        opt_state=optimizer.init(params),
        ema=None,
        key=jax.random.key(seed),
    )


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        if jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
            got, want = jax.random.key_data(got), jax.random.key_data(want)
        assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


def write(directory, seeds_by_step, **options):
    manager = checkpoint.open_checkpoints(directory, **options)
    for step, seed in seeds_by_step.items():
        checkpoint.save(manager, step, make_state(seed), {"seed": seed})
    checkpoint.finish(manager)
    return directory


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A directory with step 10 (seed 1) and step 20 (seed 2); copy it before damaging it."""
    return write(tmp_path_factory.mktemp("two_steps"), {10: 1, 20: 2})


@pytest.fixture
def directory(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "checkpoints")


def restore(directory, target=None, warnings=None):
    warnings = [] if warnings is None else warnings
    manager = checkpoint.open_checkpoints(directory, warn=warnings.append)
    try:
        return checkpoint.restore(
            manager, make_state() if target is None else target, warn=warnings.append
        )
    finally:
        checkpoint.finish(manager)


def run_python(program, *arguments, **environment):
    """Starts a Python process in the repository with the helpers of this file imported."""
    prelude = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(program), *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process, timeout=120):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out


# What comes back is what was saved.


def test_every_leaf_comes_back_bit_for_bit(directory):
    state, step = restore(directory)
    assert step == 20
    assert_same_bits(state, make_state(2))


def test_shapes_alone_are_a_sufficient_target(directory):
    state, _ = restore(directory, jax.eval_shape(make_state))
    assert_same_bits(state, make_state(2))


def test_flax_dataclasses_and_numpy_leaves(tmp_path):
    @flax.struct.dataclass
    class Small:
        weights: jax.Array
        seen: np.ndarray

    saved = Small(weights=jnp.arange(3.0), seen=np.arange(4, dtype=np.int64))
    manager = checkpoint.open_checkpoints(tmp_path)
    checkpoint.save(manager, 1, saved, {})
    state, _ = checkpoint.restore(manager, jax.tree.map(np.zeros_like, saved))
    checkpoint.finish(manager)
    assert_same_bits(state, saved)
    assert type(state.seen) is np.ndarray


def test_a_directory_without_checkpoints_restores_nothing(tmp_path):
    assert restore(tmp_path / "new") is None
    assert checkpoint.steps(tmp_path / "absent") == []


def test_the_state_may_be_donated_while_it_is_being_saved(tmp_path):
    double = jax.jit(lambda state: jax.tree.map(lambda x: x * 2, state), donate_argnums=0)
    manager = checkpoint.open_checkpoints(tmp_path)
    state = {"weights": jnp.arange(100_000, dtype=jnp.float32)}
    for step in range(3):
        checkpoint.save(manager, step, state, {})
        state = double(state)
    restored, step = checkpoint.restore(manager, jax.eval_shape(lambda: state))
    checkpoint.finish(manager)
    assert step == 2
    np.testing.assert_array_equal(restored["weights"], np.arange(100_000) * 4.0)
    np.testing.assert_array_equal(double(restored)["weights"], np.arange(100_000) * 8.0)


def test_the_configuration_of_each_step_is_read_without_a_state(tmp_path):
    write(tmp_path, {10: 1, 20: 2})
    assert checkpoint.load(tmp_path).config == {"seed": 2}
    assert checkpoint.load(tmp_path, step=10).config == {"seed": 1}


def test_the_newest_readable_configuration_is_found_without_reading_arrays(tmp_path):
    assert checkpoint.newest_config(tmp_path / "absent") is None
    write(tmp_path, {10: 1, 20: 2})
    assert checkpoint.newest_config(tmp_path) == {"seed": 2}
    shutil.rmtree(tmp_path / "20" / "state")
    assert checkpoint.newest_config(tmp_path) == {"seed": 2}
    for file in (tmp_path / "20" / "manifest").iterdir():
        file.write_text(file.read_text().replace('"seed"', '"sead"'))
    assert checkpoint.newest_config(tmp_path) == {"seed": 1}


def test_load_gives_everything_at_once(two_steps):
    loaded = checkpoint.load(two_steps, step=10)
    assert (loaded.step, loaded.config, loaded.metrics) == (10, {"seed": 1}, {})
    assert loaded.state["step"] == 1
    assert loaded.state["opt_state"]["1"]["0"]["mu"]["head"]["kernel"].shape == (4, 10)


def test_reading_from_nowhere_says_what_to_do(tmp_path, two_steps):
    with pytest.raises(UsageError, match=r"no checkpoint in .*train first"):
        checkpoint.load(tmp_path)
    with pytest.raises(UsageError, match=r"no checkpoint of step 30 in .*; there are 10, 20"):
        checkpoint.load(two_steps, step=30)


# What is saved and kept.


def test_saving_is_refused_if_a_leaf_is_not_finite(tmp_path):
    state = make_state()
    state.params["head"]["kernel"] = state.params["head"]["kernel"].at[0, 0].set(jnp.nan)
    manager = checkpoint.open_checkpoints(tmp_path)
    with pytest.raises(FloatingPointError, match=r"step 5 .* params/head/kernel"):
        checkpoint.save(manager, 5, state, {})
    assert checkpoint.restore(manager, make_state()) is None
    assert checkpoint.save(manager, 5, state, {}, check_finite=False)
    restored, _ = checkpoint.restore(manager, make_state())
    checkpoint.finish(manager)
    assert_same_bits(restored, state)


def test_a_step_that_is_saved_already_is_not_written_again(directory):
    manager = checkpoint.open_checkpoints(directory)
    assert not checkpoint.save(manager, 20, make_state(9), {"seed": 9})
    checkpoint.finish(manager)
    assert checkpoint.load(directory).config == {"seed": 2}


def test_saving_before_a_later_step_is_an_error(directory):
    manager = checkpoint.open_checkpoints(directory)
    with pytest.raises(UsageError, match=r"cannot save step 15 .* step 20 is there"):
        checkpoint.save(manager, 15, make_state(), {})
    checkpoint.finish(manager)


def test_a_configuration_that_json_cannot_hold_is_refused_at_once(tmp_path):
    manager = checkpoint.open_checkpoints(tmp_path)
    with pytest.raises(TypeError, match="JSON"):
        checkpoint.save(manager, 1, make_state(), {"optimizer": OPTIMIZER})
    checkpoint.finish(manager)
    assert checkpoint.steps(tmp_path) == []


def test_the_latest_checkpoints_and_the_best_stay(tmp_path):
    accuracy = {1: 0.5, 2: 0.9, 3: float("nan"), 4: 0.7, 5: 0.8}
    for steps in [(1, 2, 3), (4, 5)]:  # The best one is remembered across processes.
        manager = checkpoint.open_checkpoints(tmp_path, keep=2, best_metric="accuracy")
        for step in steps:
            metrics = {"accuracy": np.float32(accuracy[step])}
            checkpoint.save(manager, step, {"x": jnp.ones(2)}, {}, metrics)
        checkpoint.finish(manager)
    assert checkpoint.steps(tmp_path) == [2, 4, 5]
    assert checkpoint.best_step(tmp_path, "accuracy") == (2, pytest.approx(0.9))
    assert checkpoint.best_step(tmp_path, "accuracy", mode="min") == (4, pytest.approx(0.7))
    assert checkpoint.best_step(tmp_path, "loss") is None


def test_without_a_best_metric_only_the_latest_stay(tmp_path):
    write(tmp_path, dict.fromkeys(range(1, 6), 0), keep=2)
    assert checkpoint.steps(tmp_path) == [4, 5]


def test_a_directory_that_cannot_be_made_is_an_error_of_use(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write checkpoints in .*; choose another"):
        checkpoint.open_checkpoints(tmp_path / "file" / "checkpoints")


# Another model's checkpoint is a mistake, never a reason to fall back.


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda: make_state(features=5), r"float32\[4\] there and float32\[5\] here.* more"),
        (lambda: make_state(optimizer=optax.sgd(0.1)), r"opt_state/1/0/count .* and absent here"),
        (
            lambda: make_state()._replace(step=jnp.float32(0)),
            r"step is int32\[\] there and float32\[\] here;",
        ),
        (
            lambda: make_state()._replace(ema={"bias": jnp.zeros(3)}),
            r"ema/bias is absent there and float32\[3\] here;",
        ),
    ],
    ids=["shape", "optimizer", "dtype", "more leaves"],
)
def test_a_state_of_another_structure_is_an_error_that_names_the_leaves(directory, target, message):
    with pytest.raises(UsageError, match=message):
        restore(directory, target())
    assert checkpoint.steps(directory) == [10, 20]


# Damage.


def flip_bit(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def array_file(folder):
    """The file with the largest array, which does not compress, being random."""
    return max(files_of(folder / "state"), key=lambda path: path.stat().st_size)


def flip_in_array(folder):
    path = array_file(folder)
    flip_bit(path, path.stat().st_size // 2)


def truncate_array(folder):
    path = array_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alter_config(folder):
    path = folder / "manifest" / "metadata"
    path.write_text(path.read_text().replace('"seed": 2', '"seed": 3'))


def empty_every_file(folder):
    for path in files_of(folder):
        path.write_bytes(b"")


DAMAGE = {
    "bit flipped in an array": flip_in_array,
    "array truncated": truncate_array,
    "array file missing": lambda folder: array_file(folder).unlink(),
    "state missing": lambda folder: shutil.rmtree(folder / "state"),
    "index missing": lambda folder: (folder / "state" / "manifest.ocdbt").unlink(),
    "tree metadata missing": lambda folder: (folder / "state" / "_METADATA").unlink(),
    "tree metadata garbage": lambda folder: (folder / "state" / "_METADATA").write_bytes(b"\xff{"),
    "manifest missing": lambda folder: shutil.rmtree(folder / "manifest"),
    "manifest garbage": lambda folder: (folder / "manifest" / "metadata").write_text('{"crc32'),
    "manifest no object": lambda folder: (folder / "manifest" / "metadata").write_text("[]"),
    "configuration altered": alter_config,
    "step metadata garbage": lambda folder: (folder / "_CHECKPOINT_METADATA").write_text("{]"),
    "every file empty": empty_every_file,
    "a file in it alone": lambda folder: (
        [shutil.rmtree(folder), folder.mkdir()] + [(folder / "x").touch()]
    ),
}
HARMLESS = {"step metadata garbage"}  # Orbax does not need that file, nor do we.


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(directory, damage):
    DAMAGE[damage](directory / "20")
    warnings = []
    state, step = restore(directory, warnings=warnings)
    if damage in HARMLESS and step == 20:
        assert_same_bits(state, make_state(2))
        return
    assert step == 10
    assert_same_bits(state, make_state(1))
    assert len(warnings) == 1
    assert "checkpoints/20 is damaged (" in warnings[0]
    assert "\n" not in warnings[0]
    assert (directory / "20.damaged").is_dir()
    assert checkpoint.steps(directory) == [10]


def test_nothing_but_one_line_is_printed(directory, capfd, caplog):
    restore(directory)
    assert [record.getMessage() for record in caplog.records if record.levelno > 20] == []
    (directory / "20" / "state" / "manifest.ocdbt").write_bytes(b"no index")
    checkpoint.load(directory)
    lines = [record.getMessage() for record in caplog.records if record.levelno > 20]
    assert len(lines) == 1
    assert "20 is damaged" in lines[0]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("damage", sorted(DAMAGE.keys() - HARMLESS))
def test_reading_falls_back_too_but_changes_nothing(directory, damage):
    DAMAGE[damage](directory / "20")
    warnings = []
    before = files_of(directory)
    assert checkpoint.load(directory, warn=warnings.append).config == {"seed": 1}
    assert len(warnings) == 1
    assert files_of(directory) == before
    with pytest.raises(UsageError, match="20 is damaged"):
        checkpoint.load(directory, step=20, warn=warnings.append)


def test_damage_between_opening_and_restoring_is_found(directory):
    manager = checkpoint.open_checkpoints(directory)
    shutil.rmtree(directory / "20" / "manifest")
    _, step = checkpoint.restore(manager, make_state())
    assert step == 10
    assert checkpoint.save(manager, 20, make_state(4), {})
    checkpoint.finish(manager)
    assert checkpoint.load(directory).step == 20


@pytest.mark.parametrize("damage", ["bit flipped in an array", "manifest garbage"])
def test_after_falling_back_the_damaged_step_is_saved_anew(directory, damage):
    for seed in (5, 6):  # Twice, as an older damaged folder must not be in the way.
        DAMAGE[damage](directory / "20")
        manager = checkpoint.open_checkpoints(directory)
        _, step = checkpoint.restore(manager, make_state())
        assert step == 10
        assert checkpoint.save(manager, 20, make_state(seed), {"seed": seed})
        checkpoint.finish(manager)
        state, step = restore(directory)
        assert step == 20
        assert_same_bits(state, make_state(seed))


def test_garbage_in_the_saved_metrics_does_not_prevent_opening(tmp_path):
    manager = checkpoint.open_checkpoints(tmp_path, best_metric="loss", best_mode="min")
    for step in (1, 2):
        checkpoint.save(manager, step, {"x": jnp.full(2, step)}, {}, {"loss": 1 / step})
    checkpoint.finish(manager)
    (tmp_path / "2" / "metrics" / "metrics").write_text("{")
    state, step = restore(tmp_path, {"x": jnp.zeros(2, int)})
    assert step == 1
    np.testing.assert_array_equal(state["x"], 1)


def test_no_intact_checkpoint_is_an_error_and_stays_one(directory):
    for step in ("10", "20"):
        flip_in_array(directory / step)
    with pytest.raises(UsageError, match=r"no intact checkpoint in .*, damaged: 20, 10"):
        checkpoint.load(directory, warn=lambda line: None)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"only 10\.damaged, 20\.damaged; remove"):
            restore(directory)


def test_empty_and_temporary_folders_are_no_checkpoints(directory):
    (directory / "30").mkdir()
    shutil.copytree(directory / "20", directory / "40.orbax-checkpoint-tmp")
    shutil.copytree(directory / "20", directory / "40.orbax-checkpoint-tmp-1700000000")
    warnings = []
    state, step = restore(directory, warnings=warnings)
    assert step == 20
    assert_same_bits(state, make_state(2))
    assert sorted(path.name for path in directory.iterdir()) == ["10", "20"]
    assert len(warnings) == 1
    assert "30 is an empty folder" in warnings[0]


def test_an_empty_folder_alone_is_nothing_saved(tmp_path):
    (tmp_path / "30").mkdir()
    assert restore(tmp_path) is None


def test_a_newer_format_is_no_damage(directory):
    path = directory / "20" / "manifest" / "metadata"
    content = json.loads(path.read_text())["content"] | {"format": 99}
    crc32 = checkpoint.zlib.crc32(json.dumps(content, sort_keys=True).encode())
    path.write_text(json.dumps({"crc32": crc32, "content": content}))
    for read in (checkpoint.load, restore):
        with pytest.raises(UsageError, match="format 99"):
            read(directory)
    assert checkpoint.steps(directory) == [10, 20]


def assert_no_flip_goes_unnoticed(directory, positions_of):
    """Flips one bit at a time; what is read has to be one of the two saved states, bit for bit."""
    expected = {step: checkpoint.load(directory, step) for step in (10, 20)}
    ours, orbax = 0, 0  # Flips that only our CRC32 saw, and those that Orbax saw.
    for path in files_of(directory / "20"):
        for position, bit in positions_of(path):
            flip_bit(path, position, bit)
            warnings = []
            loaded = checkpoint.load(directory, warn=warnings.append)
            flip_bit(path, position, bit)
            assert_same_bits(loaded.state, expected[loaded.step].state)
            assert loaded.config == expected[loaded.step].config
            assert len(warnings) == (loaded.step == 10)
            ours += any("CRC32" in line for line in warnings)
            orbax += any("CRC32" not in line for line in warnings)
    return ours, orbax


def test_no_flipped_bit_is_restored(directory):
    generator = random.Random(0)

    def positions(path):
        size = path.stat().st_size
        return [(generator.randrange(size), generator.randrange(8)) for _ in range(6)]

    ours, orbax = assert_no_flip_goes_unnoticed(directory, positions)
    assert ours >= 5
    assert orbax >= 5


@pytest.mark.slow
def test_no_flipped_bit_is_restored_from_every_fifth_byte(directory):
    def positions(path):
        return [(position, position % 8) for position in range(0, path.stat().st_size, 5)]

    ours, orbax = assert_no_flip_goes_unnoticed(directory, positions)
    assert ours > 1000
    assert orbax > 300


@pytest.mark.slow
def test_a_flipped_bit_in_the_step_metadata_does_not_prevent_resuming(directory):
    path = directory / "20" / "_CHECKPOINT_METADATA"
    intact = path.read_bytes()
    for position in range(len(intact)):
        path.write_bytes(intact)
        flip_bit(path, position, position % 8)
        state, step = restore(directory)
        assert_same_bits(state, make_state(step // 10))
        if step == 10:
            shutil.rmtree(directory / "20", ignore_errors=True)
            (directory / "20.damaged").rename(directory / "20")


# Processes that are killed.

SAVE_WITHOUT_END = """
    import sys
    from test_checkpoint import checkpoint, make_state
    manager = checkpoint.open_checkpoints(sys.argv[1], keep=2)
    restored = checkpoint.restore(manager, make_state())
    step = restored[1] if restored else 0
    print(step, flush=True)
    while True:
        step += 1
        checkpoint.save(manager, step, make_state(step), {"seed": step})
        print(step, flush=True)
"""


def kill_and_restore(directory, kills, seed):
    generator = random.Random(seed)
    latest = 0
    for _ in range(kills):
        process = run_python(SAVE_WITHOUT_END, directory)
        started = int(process.stdout.readline())
        assert started == latest
        time.sleep(generator.uniform(0, 0.8))
        process.send_signal(signal.SIGKILL)
        printed = [started, *map(int, process.stdout.read().split())]
        process.communicate()
        warnings = []
        restored = restore(directory, warnings=warnings)
        state, latest = restored or (make_state(0), 0)
        assert_same_bits(state, make_state(latest))
        # The last one printed was still being written; the one before it was complete.
        assert latest >= max(started, printed[-1] - 1)
        assert checkpoint.steps(directory)[-1:] == ([latest] if latest else [])
    return latest


def test_a_process_killed_while_saving_leaves_the_last_complete_step(tmp_path):
    assert kill_and_restore(tmp_path, kills=1, seed=0) > 0


@pytest.mark.slow
def test_many_processes_killed_while_saving(tmp_path):
    assert kill_and_restore(tmp_path, kills=12, seed=1) > 0


# Devices and processes.


def mesh_of_eight():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def distributed_state(mesh):
    def put(leaf, spec):
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    state = jax.tree.map(lambda leaf: put(leaf, PartitionSpec()), make_state(3))
    return {"replicated": state, "sharded": put(jnp.arange(32.0), PartitionSpec("data"))}


def test_eight_devices_restore_onto_their_shardings(tmp_path):
    saved = distributed_state(mesh_of_eight())
    manager = checkpoint.open_checkpoints(tmp_path)
    checkpoint.save(manager, 1, saved, {})
    restored, _ = checkpoint.restore(manager, saved)
    checkpoint.finish(manager)
    assert_same_bits(restored, saved)
    for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True):
        assert got.sharding.is_equivalent_to(want.sharding, want.ndim)


ON_ONE_DEVICE = """
    import sys
    import jax, jax.numpy as jnp
    from test_checkpoint import assert_same_bits, checkpoint, make_state
    assert jax.device_count() == 1
    expected = {"replicated": make_state(3), "sharded": jnp.arange(32.0)}
    manager = checkpoint.open_checkpoints(sys.argv[1])
    restored, step = checkpoint.restore(manager, jax.eval_shape(lambda: expected))
    assert_same_bits(restored, expected)
    checkpoint.save(manager, step + 1, restored, {})
    checkpoint.finish(manager)
"""


def test_eight_devices_to_one_and_back(tmp_path):
    mesh = mesh_of_eight()
    saved = distributed_state(mesh)
    manager = checkpoint.open_checkpoints(tmp_path)
    checkpoint.save(manager, 1, saved, {})
    checkpoint.finish(manager)
    output_of(run_python(ON_ONE_DEVICE, tmp_path))

    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), saved
    )
    restored, step = restore(tmp_path, target)
    assert step == 2
    assert_same_bits(restored, saved)
    assert len(restored["sharded"].addressable_shards) == 8
    assert restored["sharded"].addressable_shards[0].data.shape == (4,)
    assert restored["replicated"].params["head"]["bias"].sharding.is_fully_replicated


def test_a_leaf_without_a_device_of_its_own_stays_free_to_join_a_mesh(directory):
    state, _ = restore(directory)
    bias = state.params["head"]["bias"]
    replicated = jax.device_put(jnp.ones(10), NamedSharding(mesh_of_eight(), PartitionSpec()))
    np.testing.assert_array_equal(jax.jit(jnp.add)(bias, replicated), np.asarray(bias) + 1)


IN_TWO_PROCESSES = """
    import sys
    from pathlib import Path
    import jax
    jax.config.update("jax_num_cpu_devices", 4)
    address, index, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    jax.distributed.initialize(address, 2, index, heartbeat_timeout_seconds=10)
    import numpy as np
    from jax.experimental import multihost_utils
    from jax.sharding import NamedSharding, PartitionSpec
    from test_checkpoint import checkpoint, flip_in_array, mesh_of_eight
    mesh = mesh_of_eight()
    def put(array, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda i: array[i])
    def state(step):
        numbers = np.random.default_rng(step).normal(size=(8, 500)).astype(np.float32)
        return {"replicated": put(numbers, PartitionSpec()),
                "sharded": put(numbers + 1, PartitionSpec("data"))}
    def check(actual, step):
        for name, expected in state(step).items():
            assert actual[name].sharding == expected.sharding
            for got, want in zip(actual[name].addressable_shards, expected.addressable_shards):
                np.testing.assert_array_equal(got.data, want.data)
    manager = checkpoint.open_checkpoints(directory)
    assert checkpoint.restore(manager, state(0)) is None
    for step in (1, 2):
        assert checkpoint.save(manager, step, state(step), {})
    restored, step = checkpoint.restore(manager, state(0))
    assert step == 2
    check(restored, 2)
    if index == 0:
        flip_in_array(directory / "2")
    multihost_utils.sync_global_devices("damaged")
    restored, step = checkpoint.restore(manager, state(0))
    assert step == 1
    check(restored, 1)
    assert checkpoint.save(manager, 2, state(7), {})
    restored, step = checkpoint.restore(manager, state(0))
    assert step == 2
    check(restored, 7)
    checkpoint.finish(manager)
"""


@pytest.mark.slow
def test_two_processes_save_restore_and_fall_back_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [run_python(IN_TWO_PROCESSES, address, index, tmp_path) for index in range(2)]
    for process in processes:
        output_of(process)
    assert checkpoint.steps(tmp_path) == [1, 2]


FULL_DISK_OF_THE_FIRST = """
    import os, resource, signal, sys
    import jax
    address, index, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    jax.distributed.initialize(address, 2, index)
    import numpy as np
    from test_checkpoint import checkpoint
    manager = checkpoint.open_checkpoints(directory)
    if index == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))
    checkpoint.save(manager, 1, {"x": np.random.default_rng(0).normal(size=2**16)}, {})
    try:
        checkpoint.finish(manager)
    except Exception as error:
        print(type(error).__name__, flush=True)
    os._exit(0)
"""


@pytest.mark.slow
def test_a_write_that_fails_is_told_though_the_other_process_waits_for_it(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    first, other = (
        run_python(FULL_DISK_OF_THE_FIRST, address, index, tmp_path) for index in range(2)
    )
    try:
        assert output_of(first).splitlines()[-1] == "ValueError"
    finally:
        other.kill()


# The hash of the parameters.


def test_the_hash_is_over_sorted_paths_and_bytes():
    variables = {"params": {"b": jnp.arange(3.0), "a": jnp.ones((), jnp.bfloat16)}}
    expected = b"params/a" + b"\x80\x3f" + b"params/b" + np.arange(3, dtype="<f4").tobytes()
    digest = checkpoint.hashlib.sha256(expected).hexdigest()
    assert checkpoint.parameters_sha256(variables) == digest


def test_the_hash_is_the_same_for_read_and_for_distributed_parameters(two_steps):
    digest = checkpoint.parameters_sha256(make_state(2).params)
    assert checkpoint.parameters_sha256(checkpoint.load(two_steps).state["params"]) == digest
    sharding = NamedSharding(mesh_of_eight(), PartitionSpec())
    assert checkpoint.parameters_sha256(jax.device_put(make_state(2).params, sharding)) == digest


def test_the_hash_changes_with_one_bit_and_with_a_name():
    digests = {
        checkpoint.parameters_sha256({name: np.float32(value)})
        for name in ("a", "b")
        for value in (1.0, np.nextafter(np.float32(1), np.float32(2)))
    }
    assert len(digests) == 4
