"""Two small networks whose maps captum computed, see tests/references/make_attribution.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops

REFERENCE = Path(__file__).parents[1] / "references" / "attribution.npz"


@pytest.fixture(scope="session")
def reference():
    """The images, the targets, and a dict each for the networks "plain" and "residual"."""
    with np.load(REFERENCE) as arrays:
        arrays = dict(arrays)
    shared = ("images", "baseline", "targets", "ssim/maps", "ssim/result")
    cases = {name: arrays[name] for name in shared}
    for name in ("plain", "residual"):
        own = {path.split("/", 1)[1]: a for path, a in arrays.items() if path.startswith(name)}
        weights = {p.removeprefix("weights/"): own.pop(p) for p in list(own) if "/" in p}
        cases[name] = own | {"weights": weights}
    return cases


@pytest.fixture(params=["plain", "residual"])
def case(request, reference):
    """What captum computed for one network."""
    return {"name": request.param} | reference[request.param]


def no_tap(path, activation):
    return activation


@pytest.fixture
def network():
    """network(case, relu=...) -> f(images, tap=...) -> logits, in none of this project's layers."""

    def build(case, relu=jax.nn.relu):
        weights = case["weights"]

        def conv(name, x, **options):
            return ops.conv(x, weights[f"{name}/weight"], **options) + weights[f"{name}/bias"]

        def dense(name, x):
            return x @ weights[f"{name}/weight"] + weights[f"{name}/bias"]

        def plain(x, tap=no_tap):
            x = tap("features", ops.max_pool(relu(conv("conv1", x)), 2))
            x = relu(conv("conv2", x, padding="valid"))
            return dense("head", tap("flat", x.reshape(len(x), -1)))

        def residual(x, tap=no_tap):
            x = conv("stem", x, stride=2)
            bn = [
                weights[f"bn/{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
            ]
            x = tap("features", relu(ops.normalize(x, *bn, 1e-5)))
            x = relu(x + conv("conv2", relu(conv("conv1", x))))
            return dense("head", x.mean(axis=(1, 2)))

        return {"plain": plain, "residual": residual}[case["name"]]

    return build


RELUS = {
    "jax.nn.relu": jax.nn.relu,
    "jnp.maximum(x, 0)": lambda x: jnp.maximum(x, 0),
    "jnp.maximum(0, x)": lambda x: jnp.maximum(0.0, x),
    "where(x > 0, x, 0)": lambda x: jnp.where(x > 0, x, 0),
    "where(~(x > 0), 0, x)": lambda x: jnp.where(~(x > 0), 0, x),
    "where(~(x <= 0), x, 0)": lambda x: jnp.where(jnp.logical_not(x <= 0), x, 0),
    "lax.clamp": lambda x: jax.lax.clamp(0.0, x, jnp.inf),
    "where(x < 0, 0, x)": lambda x: jnp.where(x < 0, 0, x),
    "where(x > 0, x, zeros)": lambda x: jnp.where(x > 0, x, jnp.zeros_like(x)),
    "lax.max": lambda x: jax.lax.max(x, jnp.zeros_like(x)),
    "lax.select": lambda x: jax.lax.select(x > 0, x, jnp.zeros_like(x)),
    "x * (x > 0)": lambda x: x * (x > 0),
    "jnp.clip(x, 0)": lambda x: jnp.clip(x, 0),
    "jitted": jax.jit(lambda x: jnp.maximum(x, 0)),
    "rematerialised": jax.checkpoint(lambda x: jnp.maximum(x, 0)),
}


@pytest.fixture(params=RELUS)
def written(request):
    """A way to write a ReLU."""
    return RELUS[request.param]
