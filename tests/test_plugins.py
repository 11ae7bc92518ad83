"""Code from outside is found by its address, or registered by the module that brings it."""

import sys

import pytest

import cnn_jax
from cnn_jax import plugins
from cnn_jax.errors import UsageError


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder that is searched for modules; what they register ends with the test."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "REGISTERED", {})
    (tmp_path / "outside_nets.py").write_text("number = 3\nimport not_installed_anywhere\n")
    (tmp_path / "outside_sizes.py").write_text("def small():\n    return 8\n")
    yield tmp_path
    for name in ("outside_nets", "outside_sizes"):
        sys.modules.pop(name, None)


def test_an_address_names_a_function_of_a_module(outside):
    assert plugins.is_address("outside_sizes:small")
    assert plugins.find("outside_sizes:small", "size")() == 8


@pytest.mark.parametrize("name", ["resnet50", "mnist:3.0.1", "optax.adam", "folder:/data", "a:"])
def test_other_names_are_no_addresses(name):
    assert not plugins.is_address(name)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("not_there.nets:small", "^cannot import not_there.nets for the model .*'not_there'; run "),
        ("outside_nets:small", "No module named 'not_installed_anywhere'"),
        ("outside_sizes:smal", "^the model outside_sizes:smal is not there: .*has no 'smal'$"),
    ],
)
def test_what_is_missing_is_named(outside, address, message):
    with pytest.raises(UsageError, match=message):
        plugins.find(address, "model")


def test_a_plugin_that_is_missing_is_named(outside):
    with pytest.raises(UsageError, match=r"^cannot import nowhere for --plugin=nowhere: "):
        plugins.load(["outside_sizes", "nowhere"])
    assert "outside_sizes" in sys.modules


def test_a_name_is_registered_once(outside):
    table = {"resnet": 1}
    plugins.register(table, "model", "mine", 2)
    assert (table["mine"], plugins.REGISTERED) == (2, {"model": ["mine"]})
    for name in ("mine", "resnet"):
        with pytest.raises(UsageError, match=f"^there is a model '{name}' already; register yours"):
            plugins.register(table, "model", name, 3)
    assert table == {"resnet": 1, "mine": 2}


@pytest.mark.parametrize("name", ["a:b", "a,b", "", "a b"])
def test_a_name_that_no_flag_can_hold_is_refused(name):
    with pytest.raises(UsageError, match=r"^cannot register the attack"):
        plugins.register({}, "attack", name, 1)


@pytest.mark.parametrize("name", [name for name in cnn_jax.__all__ if name.startswith("register")])
def test_every_table_has_a_function_that_adds_to_it(name):
    assert "UsageError: the name is taken" in " ".join(getattr(cnn_jax, name).__doc__.split())
