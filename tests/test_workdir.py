import json

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.workdir import abandon_workdir, open_workdir, write_results

CONFIG = {"model": "resnet18", "sizes": (1, 2), "learning_rate": 0.1}


def test_a_new_folder_gets_the_configuration(tmp_path):
    workdir = open_workdir(tmp_path / "new/run", CONFIG)
    assert workdir == tmp_path / "new/run"
    assert json.loads((workdir / "config.json").read_text()) == CONFIG | {"sizes": [1, 2]}
    assert [file.name for file in workdir.iterdir()] == ["config.json"]


def test_the_same_configuration_opens_it_again(tmp_path):
    open_workdir(tmp_path, CONFIG)
    before = (tmp_path / "config.json").stat()
    open_workdir(tmp_path, CONFIG)
    assert (tmp_path / "config.json").stat() == before


def test_another_configuration_is_refused_by_the_keys_that_differ(tmp_path):
    open_workdir(tmp_path, CONFIG)
    before = (tmp_path / "config.json").read_bytes()
    other = {"model": "resnet50", "sizes": (1, 2), "learning_rate": 0.1, "seed": 0}
    with pytest.raises(UsageError) as error:
        open_workdir(tmp_path, other)
    assert str(error.value) == (
        f'{tmp_path} holds a run of another configuration (model: "resnet18" there, "resnet50" '
        "here; seed: none there, 0 here); name another folder"
    )
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_number_that_may_grow_grows_and_the_former_ones_are_kept(tmp_path):
    for steps in (10, 20, 20, 50):
        open_workdir(tmp_path, CONFIG | {"steps": steps}, growing="steps")
    found = json.loads((tmp_path / "config.json").read_text())
    assert (found["steps"], found["steps_before"]) == (50, [10, 20])


def test_it_neither_shrinks_nor_grows_beside_another_change(tmp_path):
    open_workdir(tmp_path, CONFIG | {"steps": 10}, growing="steps")
    open_workdir(tmp_path, CONFIG | {"steps": 20}, growing="steps")
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UsageError, match=r"has --steps=20 and does not shrink to 10: .*schedule"):
        open_workdir(tmp_path, CONFIG | {"steps": 10}, growing="steps")
    with pytest.raises(UsageError, match=r"\(learning_rate: 0.1 there, 0.2 here; steps: 20 there"):
        open_workdir(tmp_path, CONFIG | {"steps": 30, "learning_rate": 0.2}, growing="steps")
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_an_older_version_did_not_know_is_at_its_default(tmp_path):
    open_workdir(tmp_path, CONFIG)
    open_workdir(tmp_path, CONFIG | {"flip": False}, defaults={"flip": False, "model": "other"})
    with pytest.raises(UsageError, match="flip: false there, true here"):
        open_workdir(tmp_path, CONFIG | {"flip": True}, defaults={"flip": False})


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_foreign_config_json_is_not_overwritten(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"name another folder"):
        open_workdir(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == content


def test_a_folder_that_cannot_be_made_is_an_error_of_use(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write to .*file/run: Not a directory"):
        open_workdir(tmp_path / "file" / "run", CONFIG)


def test_a_run_that_came_to_nothing_leaves_nothing(tmp_path):
    abandon_workdir(open_workdir(tmp_path / "run", CONFIG))
    assert not (tmp_path / "run").exists()


def test_a_run_with_results_is_not_abandoned(tmp_path):
    workdir = open_workdir(tmp_path / "run", CONFIG)
    write_results(workdir, {"loss": 1})
    abandon_workdir(workdir)
    assert {file.name for file in workdir.iterdir()} == {"config.json", "results.json"}


def test_results_are_plain_json(tmp_path):
    results = {
        "step": np.int64(3),
        "loss": np.float32(0.5),
        "top1_error": jnp.float32(0.25),
        "confusion": jnp.eye(2, dtype=jnp.int32),
        "lost": float("nan"),
        "losses": np.array([1.0, np.inf]),
        "passed": np.bool_(True),
        "path": tmp_path,
        "name": None,
    }
    write_results(tmp_path, results)
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "step": 3,
        "loss": 0.5,
        "top1_error": 0.25,
        "confusion": [[1, 0], [0, 1]],
        "lost": None,
        "losses": [1.0, None],
        "passed": True,
        "path": str(tmp_path),
        "name": None,
    }


def test_results_that_fail_to_be_written_leave_the_old_ones(tmp_path):
    write_results(tmp_path, {"step": 1})
    with pytest.raises(TypeError):
        write_results(tmp_path, {"step": object()})
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    assert json.loads((tmp_path / "results.json").read_text()) == {"step": 1}
