"""A limit of memory: what is chosen for it, in which order, and that the step then keeps to it."""

import dataclasses
import json

import jax
import pytest

from cnn_jax.data import datasets
from cnn_jax.errors import UsageError
from cnn_jax.programs import plan
from cnn_jax.training import loop, memory
from cnn_jax.training.config import RECOMPUTED, TrainConfig
from cnn_jax.training.plan import lowered_step, plan_step
from cnn_jax.training.repeat import override

GIB = 2**30
CONFIG = TrainConfig(batch_size=8, memory_limit=1.0)
TINY = TrainConfig(model="lenet5", model_options="filters=(4,), neurons=(16,)", batch_size=512)


def chosen(config):
    again = [name for name in RECOMPUTED if getattr(config, name)]
    return config.accumulate, *again


def choices(*settings, **options):
    config = dataclasses.replace(CONFIG, **options)
    return [chosen(each) for each in memory.choices(config, *settings)]


def test_numbers_that_stay_come_first_and_of_the_same_numbers_the_fastest():
    assert choices()[:4] == [(1,), (1, "remat_wide"), (1, "remat"), (1, "remat_deep")]
    assert choices()[4:6] == [(2,), (2, "remat_wide")]
    assert choices()[-1] == (8, "remat_deep")


@pytest.mark.parametrize(
    ("options", "settings", "parts"),
    [
        ({}, (), [1, 2, 4, 8]),
        ({"batch_size": 12}, (), [1, 2, 4]),
        ({}, (4,), [1, 2]),  # on four devices
        ({}, (1, True), [1, 2, 4]),  # a batch norm of one example would make nothing of it
        ({"norm_batch": 4}, (1, True), [1, 2]),
        ({"norm_batch": 3}, (1, True), [1]),
    ],
)
def test_parts_divide_the_batch_among_the_devices_and_keep_the_norms_groups(
    options, settings, parts
):
    assert [each[0] for each in choices(*settings, **options, remat=False)] == parts


def test_what_is_given_stays():
    assert choices(accumulate=4) == [(4,), (4, "remat_wide"), (4, "remat"), (4, "remat_deep")]
    assert choices(remat=True)[:2] == [(1, "remat"), (2, "remat")]
    assert choices(remat=False, accumulate=1) == [(1,)]


def account_of(peaks, compiled):
    """The account of a step that holds .2 GiB and whose peak is in the table."""

    def account(config):
        compiled.append(chosen(config))
        return {"argument_bytes": 0.2 * GIB, "peak_bytes": peaks[chosen(config)] * GIB}

    return account


def test_the_first_that_fits_is_taken():
    compiled = []
    peaks = {(1,): 1.4, (1, "remat_wide"): 1.1, (1, "remat"): 0.9}
    config, account = memory.fitted(CONFIG, account_of(peaks, compiled))
    assert chosen(config) == (1, "remat")
    assert account["peak_bytes"] == 0.9 * GIB
    assert compiled == list(peaks)


def test_what_cannot_fit_by_its_share_of_the_batch_is_not_compiled():
    compiled = []
    peaks = {(1,): 4.2, (1, "remat_wide"): 2.2, (1, "remat"): 2.1, (1, "remat_deep"): 2.0}
    peaks |= {(4, "remat_wide"): 0.8}
    config, _ = memory.fitted(CONFIG, account_of(peaks, compiled))
    assert compiled == list(peaks)
    assert chosen(config) == (4, "remat_wide")


def test_a_limit_below_what_the_step_is_given_is_told_after_one_compilation():
    compiled = []
    message = (
        "^--memory_limit=0.1 is too little for resnet20: its parameters, the optimizer's state and "
        "a batch alone take 0.2 GiB; raise it, or lower --batch_size or --image_size$"
    )
    with pytest.raises(UsageError, match=message):
        memory.fitted(
            dataclasses.replace(CONFIG, memory_limit=0.1), account_of({(1,): 1.4}, compiled)
        )
    assert compiled == [(1,)]


def test_what_cannot_fit_is_told_with_the_smallest_peak():
    config = dataclasses.replace(CONFIG, memory_limit=0.3)

    def account(config):
        if config.accumulate == 1:
            raise plan.DoesNotFit(None, None)
        return {"argument_bytes": 0.2 * GIB, "peak_bytes": (0.2 + 1 / config.accumulate) * GIB}

    message = (
        "^--memory_limit=0.3 is too little for resnet20: the smallest step, with --accumulate=8 "
        r"and --remat_deep, takes 0.325 GiB; raise it, or lower --batch_size or --image_size$"
    )
    with pytest.raises(UsageError, match=message):
        memory.fitted(config, account)
    with pytest.raises(UsageError, match=r"or leave out --accumulate and --remat$"):
        memory.fitted(dataclasses.replace(config, accumulate=2, remat=False), account)


def test_a_line_says_what_the_norms_see():
    account = {"peak_bytes": GIB / 2}
    parts = dataclasses.replace(CONFIG, accumulate=4, remat=True)
    assert memory.line(parts, account, with_norms=True) == (
        "the step takes 0.5 of 1 GiB, with --accumulate=4 and --remat; batch norms see 2 examples "
        "at a time instead of 8"
    )
    assert memory.line(dataclasses.replace(CONFIG, accumulate=1), account, with_norms=True) == (
        "the step takes 0.5 of 1 GiB, the batch whole"
    )
    groups = dataclasses.replace(parts, norm_batch=2)
    assert "norms" not in memory.line(groups, account, with_norms=True)
    assert "norms" not in memory.line(parts, account, with_norms=False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "resnet20", "model_options": "depth=8"}, True),
        ({"model": "resnet20", "model_options": "depth=8", "freeze": "stem|stage"}, False),
        ({"model": "resnet20", "model_options": "depth=8", "freeze": ".", "thaw_at": 2}, True),
        ({"model": "lenet5"}, False),
        ({"model": "fasterrcnn_resnet50_fpn"}, False),  # its norms are constants
    ],
)
def test_norms_that_are_trained_take_batch_statistics(options, expected):
    config = TrainConfig(**options)
    state = plan_step(config).state
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    assert memory.takes_batch_statistics(config, variables) == expected


def test_a_part_takes_its_share_of_the_memory():
    def peak(**options):
        config = dataclasses.replace(TINY, image_size=8, **options)
        return plan.compile_for_account(lowered_step(config, jax.devices()[:1]))["peak_bytes"]

    assert peak(accumulate=4) < 0.4 * peak()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("digits", folder)
    return str(folder)


def test_a_run_keeps_to_its_limit_and_to_its_choice(data_dir, tmp_path):
    """Of a network without norms, whose parts make the same numbers."""
    config = dataclasses.replace(TINY, data_dir=data_dir, steps=2)

    def run(name, said=None, **options):
        return loop.train(
            dataclasses.replace(config, **options),
            tmp_path / name,
            loop.Callbacks(say=(said if said is not None else []).append),
            devices=jax.devices()[:1],
        )

    whole = run("whole", memory_limit=1.0)
    assert whole.memory["accumulate"] == 1
    limit, said = 0.9 * whole.memory["peak_bytes"] / GIB, []
    parted = run("parted", said, memory_limit=limit)
    assert parted.memory["accumulate"] > 1
    assert parted.memory["peak_bytes"] <= limit * GIB
    assert any("with --accumulate=2" in line for line in said)
    assert parted.loss == pytest.approx(whole.loss, rel=1e-5)
    kept = json.loads((tmp_path / "parted" / "config.json").read_text())
    assert kept["accumulate"] == parted.memory["accumulate"]
    longer = run("parted", memory_limit=limit, steps=3)
    assert longer.memory == parted.memory
    with pytest.raises(UsageError, match=r"memory_limit: .* there, 1\.0 here"):
        run("parted", memory_limit=1.0)


def test_a_run_that_is_repeated_keeps_the_choice_unless_the_limit_changes():
    run = {"memory_limit": 1.0, "accumulate": 4, "remat": True, "remat_wide": False}
    assert override(run, {"seed": 1}) == run | {"seed": 1}
    assert override(run, {"memory_limit": 2.0}) == {"memory_limit": 2.0}


def test_only_what_is_jitted_is_measured():
    with pytest.raises(UsageError, match="--memory_limit is of --parallel=jit"):
        TrainConfig(memory_limit=1.0, parallel="pmap")
