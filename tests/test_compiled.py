"""What compilers count in a training step, ours beside Flax Linen's, on the CPU's devices."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cnn_jax.benchmark import Spec, compiled, flax_models
from cnn_jax.benchmark.measurement import resolve
from cnn_jax.errors import UsageError
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.plan import plan_step

QUICK = {"resnet18", "mobilenet_v2"}
SPEC = Spec("compile", "resnet18", topology="local", against="flax", batch_size=8, image_size=32)


def parameters(planned):
    return sum(leaf.size for leaf in jax.tree.leaves(planned.state.params))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in flax_models.MODELS
    ],
)
def test_flaxs_network_has_our_parameters_and_makes_an_update(name):
    config = TrainConfig(model=name, batch_size=8)
    theirs = compiled.flax_step(config)
    assert parameters(theirs) == parameters(plan_step(config))
    state, metrics = jax.eval_shape(theirs.step, theirs.state, theirs.batch)
    assert jax.tree.structure(state) == jax.tree.structure(theirs.state)
    assert metrics["loss"].shape == ()


def test_both_sides_are_counted_once_and_their_ratios_told(monkeypatch):
    """Of the programs that are compiled; resnet18 itself takes a CPU's compiler too long here."""
    compiled_programs = []

    def account(lowered, cache):
        compiled_programs.append(lowered.as_text())
        collectives = {"all-reduce": {"count": len(compiled_programs), "bytes": 8}}
        counted = dict.fromkeys(("flops", "bytes_accessed", "main_memory_bytes", "peak_bytes"), 6.0)
        return counted | {"collectives": collectives, "traffic": {}}

    monkeypatch.setattr(compiled.plan, "compile_for_account", account)
    found = compiled.measure(SPEC)
    assert all("stablehlo.convolution" in program for program in compiled_programs)
    assert found["sides"]["jax"]["parameters"] == found["sides"]["flax"]["parameters"]
    assert found["ratios"]["bytes_accessed"] == 1
    assert found["ratios"]["collectives"] == 0.5
    assert found["devices"] == len(jax.devices())


def test_a_ratio_over_nothing_is_none():
    ours = dict.fromkeys(compiled.COUNTED, 3)
    theirs = dict.fromkeys(compiled.COUNTED, 2) | {"collectives": 0}
    expected = dict.fromkeys(compiled.COUNTED, 1.5) | {"collectives": None}
    assert compiled.ratios(ours, theirs) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topology": None}, "--topology goes with --task=compile, and that with --topology"),
        ({"task": "train", "against": None}, "--topology goes with --task=compile"),
        ({"against": "torch"}, "compile is not compared with torch; give flax"),
        ({"input": "decoded"}, "runs nothing; leave --input"),
        ({"torch_compile": True}, "runs nothing"),
    ],
)
def test_what_does_not_go_with_counting_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        resolve(SPEC._replace(**change), 1)


def test_a_network_that_flaxs_side_lacks_is_refused():
    with pytest.raises(UsageError, match="unknown model of Flax's side 'lenet5'"):
        compiled.flax_step(TrainConfig(model="lenet5", batch_size=8))
    with pytest.raises(UsageError, match="leave --model_options out"):
        compiled.flax_step(TrainConfig(model="resnet18", model_options="zero_init_residual=True"))


def test_the_command_prints_counts_and_leaves_a_page(tmp_path):
    command = [sys.executable, "-P", "-m", "experiments.benchmark", "--task=compile"]
    options = ["--model=lenet5", "--topology=local", "--batch_size=8", f"--workdir={tmp_path}/a"]
    root = Path(__file__).parents[1]
    done = subprocess.run([*command, *options], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "a training step of lenet5, batch 8, 32 x 32 pixels, float32, on local" in done.stdout
    results = json.loads((tmp_path / "a/results.json").read_text())
    assert f"{results['sides']['jax']['bytes_accessed'] / 1e9:.4g} GB accessed" in done.stdout
    page = (tmp_path / "a/report.html").read_text()
    assert "Communication" in page
    assert "Where the bytes go" in page
