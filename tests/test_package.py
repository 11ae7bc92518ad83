"""What `import cnn_jax` gives and costs."""

import ast
import subprocess
import sys
from pathlib import Path

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


def public_functions(body, owner=""):
    """The public functions and classes of a module's or a class's body, with their names."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{owner}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_functions(node.body, f"{node.name}.")


def is_typed(function):
    """Whether all arguments but self, and the result, have annotations."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotated = [each.annotation for each in arguments if each.arg not in ("self", "cls")]
    return function.returns is not None and all(annotated)


def test_every_public_function_says_what_it_does_and_is_typed():
    package = Path(cnn_jax.__file__).parent
    silent, untyped = [], []
    for file in sorted(package.rglob("*.py")):
        for name, node in public_functions(ast.parse(file.read_text()).body):
            place = f"{file.relative_to(package)}: {name}"
            if not ast.get_docstring(node):
                silent.append(place)
            if isinstance(node, ast.FunctionDef) and not is_typed(node):
                untyped.append(place)
    assert (silent, untyped) == ([], [])
