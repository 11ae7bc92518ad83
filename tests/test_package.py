"""What `import cnn_jax` gives and costs."""

import subprocess
import sys

import pytest

import cnn_jax


@pytest.mark.parametrize("name", cnn_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(cnn_jax, name) is not None
    assert name in dir(cnn_jax)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        cnn_jax.create_modle  # noqa: B018


def test_importing_it_imports_neither_jax_nor_flax():
    program = "import sys, cnn_jax; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
