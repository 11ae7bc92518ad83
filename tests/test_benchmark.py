import io
import itertools
import json
import math
from contextlib import ExitStack, contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from PIL import Image

from cnn_jax import create_model
from cnn_jax.benchmark import (
    Spec,
    inputs,
    jax_side,
    machine,
    measurement,
    summary,
    worker,
    workload,
)
from cnn_jax.benchmark.measurement import check_comparable, interleave, resolve
from cnn_jax.benchmark.process import started
from cnn_jax.benchmark.program import Program, attack_outcome, calls_in, create_turn
from cnn_jax.benchmark.summary import summarize
from cnn_jax.data import datasets
from cnn_jax.errors import UsageError
from cnn_jax.programs.flops import multiply_adds
from cnn_jax.training import loop as training
from cnn_jax.training.config import TrainConfig
from tests.command import run_command

TINY = Spec("train", "lenet5", batch_size=8, image_size=32, turn_seconds=0)


def counted(function, *shapes):
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    return multiply_adds(jax.make_jaxpr(function)(*shapes))


def conv(x, kernel, stride=1, padding="SAME", groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


# --- counting ---------------------------------------------------------------------------------


def test_a_matrix_product_costs_the_product_of_its_sides():
    assert counted(lambda a, b: a @ b, (2, 3, 4, 5), (2, 3, 5, 6)) == 2 * 3 * 4 * 5 * 6


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 1)])
def test_a_convolution_and_each_of_its_gradients_cost_the_same(size, groups, stride, padding):
    def loss(x, kernel):
        return conv(x, kernel, stride, ((padding, padding),) * 2, groups).sum()

    shapes = (2, size, size, 4), (3, 3, 4 // groups, 12)
    out_size = (size + 2 * padding - 3) // stride + 1
    expected = 2 * out_size**2 * 9 * 4 // groups * 12
    assert counted(loss, *shapes) == expected
    assert counted(jax.value_and_grad(loss, argnums=1), *shapes) == 2 * expected
    assert counted(jax.value_and_grad(loss, argnums=(0, 1)), *shapes) == 3 * expected


def test_a_scan_counts_as_often_as_it_runs_and_a_conditional_once():
    def product(a, _=None):
        return a @ a, None

    def in_scan(a):
        return lax.scan(product, a, length=5)[0]

    def in_branches(a):
        return lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a)

    assert counted(in_scan, (4, 4)) == 5 * 4**3
    assert counted(in_branches, (4, 4)) == 2 * 4**3


def test_of_a_form_for_one_platform_the_plain_form_counts():
    def product(a):
        forms = {"cpu": lambda a: a @ a @ a @ a, "default": lambda a: a @ a}
        return lax.platform_dependent(a, **forms).sum()

    assert counted(product, (4, 4)) == 4**3
    assert counted(jax.value_and_grad(product), (4, 4)) == 3 * 4**3


def test_a_while_loop_with_products_has_no_count():
    def until_large(a):
        return lax.while_loop(lambda a: a[0, 0] < 9, lambda a: a @ a, a)

    def halved(a):
        return lax.while_loop(lambda a: a[0, 0] < 9, lambda a: a * 2, a)

    assert math.isnan(counted(until_large, (4, 4)))
    assert counted(halved, (4, 4)) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    # torchvision's ResNet18_Weights and ResNet50_Weights give 1.814 and 4.089 thousand million
    [("resnet18", 1_814_073_344), ("resnet50", 4_089_184_256)],
)
def test_the_residual_networks_cost_what_is_published(name, expected):
    model = create_model(name)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert multiply_adds(jax.make_jaxpr(model.apply)(variables, images)) == expected


# --- timing -----------------------------------------------------------------------------------


def test_the_sides_take_turns():
    order = []

    def side(name, times):
        times = iter(times)

        def turn():
            order.append(name)
            return next(times)

        return turn

    taken = interleave({"a": side("a", [1, 2, 3]), "b": side("b", [4, 5, 6])}, 3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert taken == {"a": [1, 2, 3], "b": [4, 5, 6]}


def test_a_summary_is_the_median_and_the_quartiles():
    assert summary.distribution([5, 1, 2, 4, 3]) == {
        "median": 3.0,
        "first_quartile": 2.0,
        "third_quartile": 4.0,
        "values": [5.0, 1.0, 2.0, 4.0, 3.0],
    }
    assert summary.distribution([7])["third_quartile"] == 7


def test_a_ratio_is_taken_turn_by_turn():
    ratio = summary.ratio([1, 20, 300], [2, 20, 100])
    assert ratio["values"] == [0.5, 1, 3]
    assert ratio["median"] == 1


def test_turns_go_on_from_each_other_after_calls_that_are_not_timed():
    calls = []

    def call(state, batch):
        calls.append((state, batch))
        return state + 1

    program = Program(call, 0, itertools.count(), 1, lambda state, output: output, lead=2)
    turn = create_turn(program)
    assert turn(3) >= 0
    assert turn(1) >= 0
    assert calls == [(i, i) for i in range(5 + 3)]


def test_a_turn_has_as_many_calls_as_its_time_holds():
    assert calls_in(1.0, lambda calls: 0.3) == 3
    assert calls_in(1.0, lambda calls: 7.0) == 1
    assert calls_in(0.0, lambda calls: pytest.fail("a call was made")) == 1


# --- the parts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dtype", "expected"),
    [
        ("NVIDIA H200", "bfloat16", 989.4e12),
        ("NVIDIA H100 80GB HBM3", "float32", 494.7e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v6 lite", "bfloat16", 918e12),
        ("NVIDIA L400", "bfloat16", None),
        ("cpu", "float32", None),
    ],
)
def test_the_published_peak_is_found_by_the_device_kind(kind, dtype, expected):
    assert machine.peak_flops(kind, dtype) == expected


def test_the_machine_is_described():
    described = machine.describe()
    assert described["jax"] == jax.__version__
    assert described["cores"] >= 1
    assert described["cpu"]
    assert len(described["load_average"]) == 3


def test_the_images_are_jpegs_of_imagenets_size_and_weight(tmp_path):
    inputs.write_images(tmp_path, count=4)
    files = sorted(tmp_path.glob("*/*.jpg"))
    assert [file.parent.name for file in files] == ["a", "a", "b", "b"]
    for file in files:
        content = file.read_bytes()
        assert Image.open(io.BytesIO(content)).size == (500, 375)
        assert 80_000 < len(content) < 140_000


# --- the tasks --------------------------------------------------------------------------------


def test_a_training_task_makes_updates_on_one_batch():
    program, facts = jax_side.prepare(TINY)
    before = jax.tree.map(np.asarray, program.state.params)
    create_turn(program)(2)
    state, _ = program.call(*_fresh(TINY))
    assert int(state.step) == 1
    assert not np.array_equal(before["conv1"]["kernel"], state.params["conv1"]["kernel"])
    assert facts["parameters"] == 61706
    assert facts["device_count"] == 8
    assert facts["trace_seconds"] > 0
    assert facts["compile_seconds"] > 0
    assert facts["program_bytes"] > 4 * 61706


def _fresh(spec):
    program = jax_side.TASKS[spec.task].program(spec)
    return program.state, next(program.batches)


def test_training_costs_three_forward_passes_less_the_gradient_of_the_images():
    model = create_model("lenet5")
    images = jax.ShapeDtypeStruct((8, 32, 32, 1), "float32")
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    forward = multiply_adds(jax.make_jaxpr(model.apply)(variables, images))
    first = 8 * 28 * 28 * 25 * 6
    program = jax_side.train(TINY)
    traced = program.call.trace(program.state, next(program.batches))
    assert multiply_adds(traced.jaxpr) == 3 * forward - first


def test_inference_gives_the_models_logits():
    spec = TINY._replace(task="inference", dtype="bfloat16")
    program, _ = jax_side.prepare(spec)
    batch = next(program.batches)
    logits = program.call(program.state, batch)
    images = ((np.asarray(batch["image"]) / 255 - 0.45) / 0.225).astype("float32")
    expected = create_model("lenet5").apply(program.state, jnp.asarray(images))
    assert logits.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(logits), expected, atol=0.05)


def test_the_input_task_decodes(tmp_path):
    inputs.write_images(tmp_path, count=8)
    spec = Spec("input", "resnet18", batch_size=4, image_size=64, images=str(tmp_path))
    program, facts = jax_side.prepare(spec._replace(num_threads=0))
    batch = program.call(None, next(program.batches))
    assert batch["image"].shape == (4, 64, 64, 3)
    assert batch["image"].std() > 10
    assert "compile_seconds" not in facts


def test_decoded_images_feed_only_models_of_colour_images(tmp_path):
    spec = TINY._replace(input="decoded", images=str(tmp_path))
    with pytest.raises(UsageError, match="3 channels, lenet5 takes 1; give --input=synthetic"):
        jax_side.prepare(spec)


def test_both_sides_are_given_one_network_and_its_images(tmp_path):
    spec = TINY._replace(task="pgd", workload=str(tmp_path / "workload.npz"))
    network, made = workload.create(spec)
    read = workload.read(spec.workload)
    assert jax.tree.all(jax.tree.map(np.array_equal, read, made))
    assert read.num_classes == 10
    normalized = (read.pixels - read.mean) / read.std
    logits = network.model.apply(read.variables, jnp.asarray(normalized))
    np.testing.assert_array_equal(logits.argmax(axis=1), read.classes)
    assert workload.facts(read) == {"parameters": 61706}


def test_the_workload_is_a_runs_network_and_its_first_examples(run_of_digits):
    spec = resolve(Spec("pgd", "", run=run_of_digits, batch_size=3), 1)
    assert (spec.model, spec.image_size, spec.input) == ("lenet5", 32, "run")
    network, made = workload.create(spec)
    assert network.source["step"] == 1
    assert made.pixels.shape == (3, 32, 32, 1)
    assert made.mean == np.float32(datasets.STATISTICS["digits"][0])
    assert made.num_classes == 10


@pytest.fixture(scope="module")
def run_of_digits(tmp_path_factory):
    """A run of one step."""
    workdir = tmp_path_factory.mktemp("digits")
    config = TrainConfig(model="lenet5", dataset="digits", image_size=32, batch_size=8, steps=1)
    training.train(config, workdir)
    return str(workdir)


@pytest.mark.parametrize("task", ["pgd", "deepfool"])
def test_an_attack_says_how_many_it_fooled(task):
    program, facts = jax_side.prepare(TINY._replace(task=task, batch_size=4))
    images, classes = next(program.batches)
    adversarial = program.call(program.state, (images, classes))
    assert adversarial.shape == images.shape
    found = program.outcome(adversarial)
    assert found.keys() == {"fooled", "median_l2"}
    assert found["median_l2"] > 0
    assert facts["parameters"] == 61706
    assert "compile_seconds" not in facts


@pytest.mark.slow
@pytest.mark.parametrize("task", ["autoattack", "universal"])
def test_an_ensemble_and_a_universal_perturbation_say_it_too(task, monkeypatch):
    monkeypatch.setattr(workload, "AUTOATTACK", {"eps": 1, "steps": 3, "queries": 5})
    monkeypatch.setattr(workload, "UNIVERSAL", workload.UNIVERSAL | {"epochs": 1})
    program, _ = jax_side.prepare(TINY._replace(task=task, batch_size=4, eps=0.05))
    images, classes = next(program.batches)
    adversarial = program.call(program.state, (images, classes))
    assert program.outcome(adversarial)["median_l2"] >= 0
    assert np.abs(adversarial - images).max() <= 0.05 + 1e-6


def test_what_came_of_an_attack_is_counted_and_measured():
    pixels = np.zeros((3, 2, 2, 1))
    adversarial = pixels + np.array([0, 1, 2]).reshape(3, 1, 1, 1)
    found = attack_outcome(pixels, adversarial, np.array([1, 2, 3]), np.array([1, 0, 0]))
    assert found == {"fooled": 2 / 3, "median_l2": 2}


@pytest.mark.parametrize(
    ("task", "images", "shape"),
    [
        ("occlusion", 1, (1, 32, 32)),
        ("integrated_gradients", 1, (1, 32, 32, 1)),
        ("dream", 2, (2, 32, 32, 1)),
        ("ascent", 2, (2, 32, 32, 1)),
    ],
)
def test_a_picture_is_of_the_first_image_or_of_all(task, images, shape):
    program, _ = jax_side.prepare(TINY._replace(task=task, batch_size=2))
    picture = program.call(program.state, next(program.batches))
    assert picture.shape == shape
    assert program.images == images
    assert program.outcome(picture)["mean_absolute"] == pytest.approx(np.abs(picture).mean())


def test_a_worker_answers_command_by_command():
    class Side:
        prepare = staticmethod(lambda spec: (PROGRAM, {"platform": "cpu"}))
        matrix_product = staticmethod(lambda side, dtype: lambda: None)
        peak_device_bytes = staticmethod(lambda: None)

    PROGRAM = Program(lambda state, batch: None, None, itertools.repeat(0), images=5)
    PROGRAM = PROGRAM._replace(outcome=lambda output: {"fooled": 0.5})
    commands = [TINY._asdict(), "warm_up", "turn", "turn", "finish"]
    facts, warm, first, second, finish = worker.answers(Side, map(json.dumps, iter(commands)))
    assert facts == {"platform": "cpu", "images_per_call": 5}
    assert warm["calls"] == 1
    for turn in (first, second):
        assert turn.keys() == {"seconds", "idle_seconds", "idle_cpu_seconds"}
    assert finish["peak_device_bytes"] is None
    assert finish["peak_rss_bytes"] > 1e7
    assert finish["outcome"] == {"fooled": 0.5}
    assert finish["matrix_flops"] > 0


# --- results ----------------------------------------------------------------------------------

FACTS = {
    "platform": "cpu",
    "device_kind": "cpu",
    "device_count": 1,
    "xla_flags": "",
    "parameters": 10,
    "images_per_call": 8,
    "peak_device_bytes": None,
    "peak_rss_bytes": 100,
    "matrix_flops": 1e9,
    "calls": 3,
}


def test_the_results_follow_from_the_facts_and_the_times():
    facts = FACTS | {"flops": 4e8, "trace_seconds": 0.2, "compile_seconds": 1.0}
    cold = facts | {"compile_seconds": 5.0, "program_bytes": 77}
    torch = FACTS | {"matrix_flops": 2e9, "layout": "nchw"}
    sides, seconds = {"jax": facts, "torch": torch}, {"jax": [0.5, 1, 2], "torch": [2, 2, 2]}
    results = summarize(TINY, {"cpu": "a"}, cold, sides, seconds, [])
    one = results["sides"]["jax"]
    assert one["milliseconds"]["median"] == 1000
    assert one["images_per_second"]["median"] == 8
    assert one["images_per_second"]["first_quartile"] == 6
    assert one["flop_utilization"] == pytest.approx(0.2)  # of the faster matrix product
    assert one["compile"] == {"trace_seconds": 0.2, "cold_seconds": 5.0, "cached_seconds": 1.0}
    assert one["memory"] == {"peak_device_bytes": None, "peak_rss_bytes": 100, "program_bytes": 77}
    assert results["flops_per_image"] == 5e7
    assert results["peak_flops"] == 2e9
    assert results["sides"]["torch"]["layout"] == "nchw"
    assert results["comparison"]["time_ratio"]["values"] == [0.25, 0.5, 1]


def test_the_published_peak_is_that_of_all_devices():
    gpu = {"platform": "gpu", "device_kind": "NVIDIA H200", "device_count": 2, "flops": 989.4e12}
    results = summarize(TINY._replace(dtype="bfloat16"), {}, {}, {"jax": FACTS | gpu}, {"jax": [1]})
    assert results["peak_flops"] == 2 * 989.4e12
    assert results["sides"]["jax"]["flop_utilization"] == pytest.approx(0.5)
    other = gpu | {"device_kind": "NVIDIA RTX 1"}
    results = summarize(TINY, {}, {}, {"jax": FACTS | other}, {"jax": [1]})
    assert results["peak_flops"] is None
    assert results["sides"]["jax"]["flop_utilization"] is None


# --- errors of use ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "trian"}, "unknown task 'trian'; did you mean 'train'"),
        ({"model": "resnet5"}, "unknown model 'resnet5'; did you mean"),
        ({"model_options": "droput=1"}, "unknown option of lenet5 'droput'"),
        ({"batch_size": 0}, "--batch_size=0 is too small"),
        ({"image_size": 0}, "--image_size=0 is too small"),
        ({"turn_seconds": -1}, "--turn_seconds=-1 is negative"),
        ({"task": "pgd", "against": "art"}, "pgd is not compared with art; give torchattacks or f"),
        ({"task": "input", "against": "flax"}, "input is not compared with flax; give torch"),
        ({"task": "deepfool", "eps": 0.1}, "--task=deepfool has no budget; leave --eps out"),
        ({"run": "runs/digits"}, "--run goes with another task than train: pgd, deepfool"),
        ({"task": "pgd", "run": "no/run"}, "no/run holds no training run; give"),
        ({"task": "pgd", "dtype": "bfloat16"}, "pgd does not take --dtype=bfloat16; leave it out"),
        ({"task": "dream", "input": "decoded"}, "dream does not take --input=decoded"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(change, message):
    with pytest.raises(UsageError, match=message):
        resolve(TINY._replace(**change), 1)


def test_the_image_size_is_the_models_and_the_input_task_decodes():
    spec = Spec("input", "resnet20")
    assert resolve(spec, 1)._asdict() == spec._asdict() | {
        "image_size": 32,
        "input": "decoded",
    }


@pytest.mark.parametrize(("first_call", "turns"), [(10, 0), (0.1, 3)])
def test_the_fastest_way_is_told_by_the_first_calls_where_these_are_long(
    monkeypatch, first_call, turns
):
    taken = []

    class Side:
        """A worker whose calls take half as long by the other layout."""

        def __init__(self, layout):
            self.layout = layout
            self.facts = {"first_call_seconds": first_call / (1 + (layout == "channels_last"))}

        def ask(self, command):
            assert command == "warm_up"

        def turn(self):
            taken.append(self.layout)
            return self.facts["first_call_seconds"]

        def forget(self):
            pass

    @contextmanager
    def started(name, spec, environment):
        yield Side(spec.layout)

    monkeypatch.setattr(measurement, "started", started)
    monkeypatch.setattr(measurement, "check_comparable", lambda *facts: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    with ExitStack() as stack:
        side, pilot = measurement._fastest_torch(TINY, {"platform": "cpu"}, stack, str)
    assert side.layout == "channels_last"
    assert [len(way["milliseconds"]) for way in pilot] == [max(1, turns)] * 2
    assert len(taken) == 2 * turns


def test_without_pytorch_one_line_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs torch, which is not installed.*pip install"):
        resolve(TINY._replace(against="torch"), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": 9}, "parameters of JAX's side is 10, of PyTorch's 9: lenet5 is another"),
        ({"platform": "gpu"}, "platform of JAX's side is cpu, of PyTorch's gpu"),
        ({"device_count": 2}, "device count of JAX's side is 1, of PyTorch's 2"),
    ],
)
def test_only_the_same_net_on_the_same_device_is_compared(change, message):
    check_comparable("lenet5", FACTS, FACTS)
    with pytest.raises(UsageError, match=message):
        check_comparable("lenet5", FACTS, FACTS | change)


def test_a_batch_that_does_not_divide_is_refused_by_the_worker():
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    message = "--batch_size=3 does not divide by 2 devices"
    with (
        pytest.raises(UsageError, match=message),
        started("jax", TINY._replace(batch_size=3), devices),
    ):
        pass


# --- the experiment ---------------------------------------------------------------------------


def test_an_error_of_use_leaves_no_folder(tmp_path):
    process = run_command("benchmark", "--task=tain", f"--workdir={tmp_path / 'new'}")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "error: unknown task 'tain'; did you mean 'train'?\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_experiment_leaves_results_and_a_report(tmp_path):
    workdir = tmp_path / "run"
    process = run_command(
        "benchmark",
        *("--task=inference", "--model=lenet5", "--batch_size=2", "--rounds=2"),
        *("--turn_seconds=0.01", f"--workdir={workdir}"),
    )
    assert process.returncode == 0, process.stderr
    results = json.loads((workdir / "results.json").read_text())
    side = results["sides"]["jax"]
    assert len(side["milliseconds"]["values"]) == 2
    assert side["compile"].keys() == {"trace_seconds", "cold_seconds", "cached_seconds"}
    assert side["memory"]["peak_rss_bytes"] > 1e7
    assert results["flops"] == 2 * results["flops_per_image"]
    assert results["machine"]["jax"] == jax.__version__
    assert "comparison" not in results
    assert "inference lenet5, batch 2" in (workdir / "report.html").read_text()
    assert process.stdout.startswith("inference lenet5, batch 2, 32 x 32 pixels, float32")
