"""The experiments that break a network, as their users run them, on one of forty steps."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import run_command

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adversarial")
    tiny = ["--recipe=digits", "--model=lenet5", "--model_options=filters=(8,), neurons=(16,)"]
    done = run_command(
        "train", *tiny, "--steps=40", f"--workdir={folder}/run", f"--data_dir={folder}"
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


def attack(trained, name, *flags):
    output = trained / name
    done = run_command("adversarial", f"--workdir={trained}", f"--output={output}", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads((output / "results.json").read_text()), output


def test_images_verdicts_curve_and_page(trained):
    results, output = attack(trained, "pgd", "--eps=32/255", "--examples=20", "--attack_steps=5")
    with np.load(output / "adversarial.npz") as arrays:
        moved = np.abs(arrays["adversarial"] - arrays["images"])
    assert moved.max() <= 32 / 255 + 1e-6
    assert results["robust_accuracy"] < results["clean_accuracy"]
    changed = [each["before"] != each["after"] for each in results["images"]]
    right = [each["before"] == each["label"] for each in results["images"]]
    assert results["success"] == pytest.approx(sum(changed) / sum(right))
    assert results["misread_before"] == 20 - sum(right)
    curve = results["curve"]["accuracy"]
    assert curve == sorted(curve, reverse=True)
    # at the budget of the figure the curve only adds what smaller budgets have fooled
    at = np.isclose(results["curve"]["eps"], 32 / 255).argmax()
    assert curve[at] <= results["robust_accuracy"]
    assert "adversarial.png" in [file.name for file in output.iterdir()]
    assert 'src="http' not in (output / "report.html").read_text()


def test_a_target_leaves_its_own_class_out(trained):
    flags = ("--target=3", "--eps=0.5", "--examples=20", "--norm=linf")
    results, _ = attack(trained, "target", *flags)
    assert "3" not in {each["label"] for each in results["images"]}
    right = [each for each in results["images"] if each["before"] == each["label"]]
    share = sum(each["after"] == "3" for each in right) / len(right)
    assert results["success"] == pytest.approx(share)
    assert share > 0


def test_an_attack_without_a_budget(trained):
    results, _ = attack(trained, "deepfool", "--attack=deepfool", "--examples=10")
    assert results["robust_accuracy"] == 0
    assert 0 < results["median_size"]["l2"] < 2


def test_evaluation_under_attacks_and_under_all_of_them(trained):
    flags = ("--eps=32/255", "--epsilons=8/255,64/255", "--attack_examples=40")
    flags += ("--attack=fgsm,deepfool",)
    done = run_command("evaluate", f"--workdir={trained}", *flags)
    assert done.returncode == 0, done.stderr
    results = json.loads((trained / "results.json").read_text())
    attacked = results["under_attack"]
    assert attacked["examples"] == 40
    assert attacked["doubts"] == []
    assert attacked["norm"] == "linf"  # fgsm's, which deepfool knows
    rows = [attacked, *attacked["attacks"].values()]
    for row in rows:
        assert len(row["curve"]["eps"]) == 4
        assert row["curve"]["accuracy"] == sorted(row["curve"]["accuracy"], reverse=True)
        assert row["robust_accuracy"] == row["curve"]["accuracy"][2]
    together, *alone = np.array([row["curve"]["accuracy"] for row in rows])
    assert (together <= np.minimum(*alone)).all()
    assert together[-1] < together[0]
    assert f"all of these, linf eps 0.1255: accuracy {together[0]:.2%}" in done.stdout
    assert results["examples"] == 359
    assert (trained / "attack.png").stat().st_size > 0


MASKED = """
import runpy, sys
from jax import numpy as jnp
from jax.tree_util import Partial
from cnn_jax import trained

def rounded(logits_of, images):
    return logits_of(jnp.round(images * 16) / 16)

plain = trained.classifier  # experiments.NAME, as it is run, but with another network
trained.classifier = lambda network: Partial(rounded, plain(network))
runpy.run_module(f"experiments.{sys.argv.pop(1)}", run_name="__main__")
"""


@pytest.mark.parametrize("name", ["evaluate", "adversarial"])
def test_a_masked_gradient_does_not_pass_for_robustness(trained, tmp_path, name):
    flags = [f"--workdir={trained}", "--attack=fgsm", "--eps=32/255"]
    flags += {
        "evaluate": ["--attack_examples=20"],
        "adversarial": ["--examples=20", f"--output={tmp_path}"],
    }[name]
    command = [sys.executable, "-c", MASKED, name, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = {"evaluate": trained, "adversarial": tmp_path}[name]
    results = json.loads((folder / "results.json").read_text())
    (doubt,) = results.get("under_attack", results)["doubts"]
    assert "the gradient vanishes on" in doubt
    assert f"warning: {doubt}" in done.stderr
    assert doubt in (folder / "report.html").read_text()


def test_a_universal_perturbation_and_its_transfer(trained):
    output = trained / "universal"
    flags = ("--method=sgd", "--eps=64/255", "--made_of=10,60", "--examples=100")
    done = run_command(
        "universal_perturbation",
        f"--workdir={trained}",
        f"--other={trained}",
        f"--output={output}",
        *flags,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((output / "results.json").read_text())
    assert results["networks"] == ["lenet5", "lenet5 2"]
    rate = results["fooling_rate"][-1]
    # the same network twice: one column and one row are the other
    assert results["transfer"] == [[rate, rate], [rate, rate]]
    assert rate > 0.2
    with np.load(output / "universal.npz") as arrays:
        assert np.abs(arrays["lenet5"]).max() <= 64 / 255 + 1e-6
    assert 'src="http' not in (output / "report.html").read_text()


def test_a_patch_is_judged_beside_its_pixels_shuffled(trained):
    flags = ("--attack_steps=40", "--examples=40", "--areas=.3,.6", "--judged_at=.6,.1")
    done = run_command("patch", f"--workdir={trained}", "--target=3", *flags)
    assert done.returncode == 0, done.stderr
    folder = trained / "patch"
    results = json.loads((folder / "results.json").read_text())
    assert (results["target"], results["areas"]) == ("3", [0.1, 0.6])
    own, shuffled = (results["success"][way]["lenet5"] for way in results["success"])
    assert own[1] > 0.3 > shuffled[1]
    with Image.open(folder / "patch.png") as image:
        assert image.size == (1181, 1181)
        assert image.getpixel((0, 0))[3] == 0
        assert image.getpixel((590, 590))[3] == 255
        assert round(image.info["dpi"][0]) == 300
    assert "seen as: 3" in (folder / "report.html").read_text()
    failed = run_command("patch", f"--workdir={trained}")
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert "--target is missing" in failed.stderr


@pytest.mark.parametrize(
    ("flag", "message"), [("pgd,pdg", "did you mean 'pgd'"), ("", "names no attack")]
)
def test_a_wrong_attack_is_told_before_anything_is_evaluated(trained, flag, message):
    done = run_command("evaluate", f"--workdir={trained}", f"--attack={flag}")
    assert done.returncode == 2
    assert done.stderr.startswith("error:")  # no bar of batches before it
    assert message in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps=8"], "in units of 255 it is 8/255 = 0.03137"),
        (["--eps=eight"], "cannot read 'eight' as a budget"),
        (["--attack=pdg"], "did you mean 'pgd'"),
        (["--attack=deepfool", "--norm=l1"], "deepfool knows l2 and linf, not l1"),
        (["--target=11"], "unknown class '11'"),
    ],
)
def test_errors_of_use(trained, flags, message):
    done = run_command("adversarial", f"--workdir={trained}", f"--output={trained}/bad", *flags)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error:")
    assert message in done.stderr
