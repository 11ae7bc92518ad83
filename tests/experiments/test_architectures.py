"""experiments.architectures as its users run it."""

import json

import pytest

from tests.command import run_command


def test_one_network_prints_the_lectures_table_and_keeps_it(tmp_path):
    done = run_command("architectures", "--model=vgg16", f"--workdir={tmp_path / 'vgg16'}")
    assert done.returncode == 0, done.stderr
    assert "138,344,128" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("pool5"))
    assert {"7x7x512", "25,088", "212", "25k"} <= set(line.split())
    (row,) = json.loads((tmp_path / "vgg16" / "results.json").read_text())["models"]
    assert (row["name"], row["params"], row["layers"]) == ("vgg16", 138_357_544, 16)
    assert (row["macs"], row["activations"]) == (15_470_264_320, 15_237_608)
    assert row["size_mb"] == pytest.approx(553.430176)
    assert row["size_mib"] == pytest.approx(527.8, abs=0.05)
    assert row["published"]["top1_error"] == 28.408
    assert row["lecture"]["size_mb"] == 540
    assert sum(layer["macs"] for layer in row["rows"]) == row["macs"]


def test_an_unknown_network_is_an_error_of_use(tmp_path):
    done = run_command("architectures", "--model=vgg61", f"--workdir={tmp_path / 'none'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown model 'vgg61'; did you mean")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_every_network_has_a_row_with_its_numbers_a_plugins_too(tmp_path):
    from cnn_jax import model_names

    (tmp_path / "own_networks.py").write_text(
        "import cnn_jax\n"
        "from cnn_jax.models.lenet import MODELS\n"
        'cnn_jax.register_model("own_lenet", MODELS["lenet5"])\n'
    )
    flags = ("--plugin=own_networks", f"--workdir={tmp_path / 'all'}")
    done = run_command("architectures", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "all" / "results.json").read_text())["models"]
    assert {row["name"] for row in rows} == {*model_names(), "own_lenet"}
    own, ours = (next(r for r in rows if r["name"] == n) for n in ("own_lenet", "lenet5"))
    assert (own["params"], own["macs"]) == (ours["params"], ours["macs"])
    for row in rows:
        keys = ("params", "macs", "activations", "layers", "size_mb", "size_mib")
        assert all(row[key] > 0 for key in keys), row["name"]
    assert (tmp_path / "all" / "figures" / "error_macs.png").exists()
    assert (tmp_path / "all" / "figures" / "naive_inception.png").exists()
