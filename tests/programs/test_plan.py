"""Plans: what a compiled step is told to take, on the CPU's devices and in programs as text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.data import detection as objects
from cnn_jax.programs import plan
from cnn_jax.programs.hlo import read
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.plan import plan_step, what_would_fit

TINY = {"model_options": "filters=(4,), neurons=(8,)", "batch_size": 16}


def planned(devices, **options):
    step = plan_step(TrainConfig(model="lenet5", **TINY | options))
    lowered = plan.lower_step(step.step, step.state, step.batch, devices)
    return plan.compile_for_account(lowered), step


def size(tree):
    return sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def test_a_device_holds_the_state_and_its_share_of_the_batch():
    found, step = planned(jax.devices())
    share = size(step.batch) / len(jax.devices())
    assert found["argument_bytes"] == pytest.approx(size(step.state) + share, rel=0.05)
    assert found["peak_bytes"] >= found["argument_bytes"]


def test_one_device_communicates_nothing():
    found, _ = planned(jax.devices()[:1])
    assert found["collectives"] == {}


def test_devices_exchange_gradients_and_metrics_and_nothing_else():
    found, step = planned(jax.devices())
    assert set(found["collectives"]) == {"all-reduce"}
    gradients = size(step.state.params)
    # the first kernel is summed in blocks, the form that a CPU computes its gradient in
    assert gradients <= found["collectives"]["all-reduce"]["bytes"] <= 1.1 * gradients


def test_norms_of_groups_within_a_device_cost_no_collective_of_their_own():
    resnet = TrainConfig(model="resnet20", model_options="depth=8", image_size=8, batch_size=16)
    counts = {}
    for size in (None, 2):
        step = plan_step(dataclasses.replace(resnet, norm_batch=size))
        lowered = plan.lower_step(step.step, step.state, step.batch, jax.devices())
        found = plan.compile_for_account(lowered)
        counts[size] = found["collectives"]["all-reduce"]["count"]
    norms = len(step.state.batch_stats)
    assert counts[None] > norms
    assert counts[2] <= 2


def test_the_arithmetic_is_that_of_the_devices_share():
    (whole, _), (share, _) = planned(jax.devices()[:1]), planned(jax.devices())
    assert share["flops"] == pytest.approx(whole["flops"] / len(jax.devices()), rel=0.2)


@pytest.mark.parametrize(("platform", "turns"), [("tpu", 4), ("cpu", 1)])
def test_accumulated_parts_are_a_loop_where_the_devices_run_one(platform, turns):
    step = plan_step(TrainConfig(model="lenet5", accumulate=4, **TINY), platform=platform)
    traced = jax.make_jaxpr(step.step)(step.state, step.batch)
    (loop,) = [each for each in traced.eqns if each.primitive.name == "scan"]
    assert loop.params["length"] / (loop.params["unroll"] or 1) == turns


def test_a_plan_is_kept_by_its_program(tmp_path, monkeypatch):
    step = plan_step(TrainConfig(model="lenet5", **TINY))
    lowered = plan.lower_step(step.step, step.state, step.batch, jax.devices())
    first = plan.compile_for_account(lowered, tmp_path)
    monkeypatch.setattr(plan, "account", None)
    assert plan.compile_for_account(lowered, tmp_path) == first


PROGRAM = """ENTRY %main (a: f32[64]) -> f32[] {
  %all-reduce.1 = (f32[64]{0}, bf16[8,2]{1,0}) all-reduce(%a, %b), replica_groups={{0,1}}
  %ag = (f32[4,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%c), dimensions={0}
  %agd = f32[16,8]{1,0} all-gather-done(%ag)
  %ar = f32[] all-reduce-start(%d), to_apply=%add
  %p = pred[3]{0} collective-permute(%e)
}"""


def test_collectives_are_counted_with_the_bytes_of_their_results():
    assert plan.collectives(read(PROGRAM)) == {
        "all-gather": {"count": 1, "bytes": 16 * 8 * 4},
        "all-reduce": {"count": 2, "bytes": 64 * 4 + 16 * 2 + 4},
        "collective-permute": {"count": 1, "bytes": 3},
    }


def test_bounds_are_the_published_peaks_times():
    # a step of ResNet-50 with 128 images on a v5e, if all that it accesses were in the main memory
    accounted = {"flops": 3.077e12, "main_memory_bytes": 48.83e9, "peak_bytes": 4.36 * 2**30}
    accounted["collectives"] = {"all-reduce": {"count": 100, "bytes": 100e6}}
    found = plan.bounds(accounted, "TPU v5 lite", 4)
    assert found["arithmetic"] == pytest.approx(15.6e-3, abs=1e-4)
    assert found["memory"] == found["seconds"] == pytest.approx(59.6e-3, abs=1e-4)
    assert found["network"] == pytest.approx(2 * 0.75 * 100e6 / 200e9)
    assert found["fits"]
    assert plan.bounds(accounted, "cpu", 4)["seconds"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "unknown generation of TPU 'v9'"),
        ("v5e", "has no shape; write v5e:4x4"),
        ("v5e:2", "has no shape"),
    ],
)
def test_an_unknown_topology_is_an_error(name, message):
    with pytest.raises(UsageError, match=message):
        plan.topology_devices(name)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("resnet20", {"mixup": 0.2, "ema_decay": 0.99, "image_size": 8}),
        ("unet", {"model_options": "features=(4, 8)", "image_size": 16}),
        ("localizer_resnet18", {"image_size": 32}),
        ("fasterrcnn_resnet10_fpn", {"image_size": 64}),
        ("maskrcnn_resnet10_fpn", {"image_size": 64, "max_objects": 9}),
    ],
)
def test_steps_of_every_task_with_images_have_a_plan(model, options):
    step = plan_step(TrainConfig(model=model, batch_size=8, **options))
    state, metrics = jax.eval_shape(step.step, step.state, step.batch)
    assert metrics["loss"] == jax.ShapeDtypeStruct((), jnp.float32)
    assert jax.tree.structure(state) == jax.tree.structure(step.state)


@pytest.mark.slow
def test_a_detectors_batch_is_that_of_its_data():
    """Of the same arrays, but for the number of examples and objects."""
    planned = plan_step(TrainConfig(model="maskrcnn_resnet10_fpn", image_size=64, batch_size=2))
    data = objects.load("shapes", "train", None)
    one = objects.read(data, planned.config.max_objects, 64, 0)
    assert {name: (x.shape[1:], x.dtype) for name, x in planned.batch.items()} == {
        name: (x.shape, x.dtype) for name, x in one.items()
    }


def test_a_detector_that_is_given_its_regions_has_no_plan():
    with pytest.raises(UsageError, match="has no plan, as it needs proposals of regions"):
        plan_step(TrainConfig(model="fastrcnn_vgg16"))


def test_the_largest_batch_follows_from_the_memory_beside_the_state():
    # on each of four devices: 1 GiB of state, and 3 GiB for 32 examples, of 16 GiB
    assert plan.largest_batch(2**30, 4 * 2**30, 16 * 2**30, 128, 4) == 4 * 32 * 5
    assert plan.largest_batch(2**30, 4 * 2**30, 2**30, 128, 4) == 0


class TooLarge:
    """A lowered step that its compiler refuses, in libtpu's words."""

    def __init__(self, message):
        self.message = message

    def as_text(self):
        return ""

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.message)


def test_a_step_that_does_not_fit_is_told_with_what_it_needs():
    words = "RESOURCE_EXHAUSTED: Ran out of memory. Used 17.50G of 15.75G hbm. Exceeded by 1.75G."
    with pytest.raises(plan.DoesNotFit, match=r"needs 17\.50 GiB of 15\.75 GiB .* --remat_wide"):
        plan.compile_for_account(TooLarge(words))
    with pytest.raises(plan.DoesNotFit, match="does not fit") as refused:
        plan.compile_for_account(TooLarge("RESOURCE_EXHAUSTED: in other words"))
    assert refused.value.needed is None


def test_a_refused_step_is_planned_with_rematerialisation(monkeypatch):
    config = TrainConfig(model="resnet20", model_options="depth=8", image_size=8, batch_size=16)
    tried = []

    def compile_for_account(lowered, cache):
        tried.append(lowered)
        if len(tried) == 1:
            raise plan.DoesNotFit(None, None)
        return {"peak_bytes": 2**30}

    monkeypatch.setattr(plan, "compile_for_account", compile_for_account)
    refused = plan.DoesNotFit(4 * 2**30, 3 * 2**30)
    said = what_would_fit(config, jax.devices(), refused, None)
    assert said == "; about --batch_size=8 would fit; with --remat it fits, at 1.00 GiB"
