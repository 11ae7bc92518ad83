"""The closed forms against jax.grad, PyTorch and the slides."""

from functools import partial

import jax
import numpy as np
import pytest

from cnn_jax import UsageError, ops
from tests.ops.test_convolution import CASES, CLOSE, kernel, plane


def random_settings(seed):
    """A random convolution; most leave a remainder behind the last window."""
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4))
    groups = int(rng.integers(1, 4))
    channels, features = groups * rng.integers(1, 4, size=2)
    spatial, sizes = rng.integers(3, 10, size=axes), rng.integers(1, 5, size=axes)
    settings = {
        "stride": rng.integers(1, 5, size=axes).tolist(),
        "dilation": rng.integers(1, 4, size=axes).tolist(),
        "groups": groups,
        "padding": [
            "same",
            "full",
            int(rng.integers(0, 4)),
            [tuple(pair) for pair in rng.integers(-1, 4, size=(axes, 2)).tolist()],
        ][rng.integers(4)],
    }
    x = rng.normal(size=(2, *spatial, channels))
    f = rng.normal(size=(*sizes, channels // groups, features))
    return x, f, settings


# optimisation off: the time goes into compilation. The algebraic simplifier off: jaxlib 0.10.2's
# aborts the process on a few of these ("Window dimensions do not match RHS shape")
PLAIN = {"xla_backend_optimization_level": 0, "xla_disable_hlo_passes": "algsimp"}


@pytest.mark.parametrize(
    "seeds", [range(20), pytest.param(range(20, 300), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_both_gradients_equal_jaxs_for_any_stride_padding_dilation_and_group(seeds):
    tried = 0
    for seed in seeds:
        x, f, settings = random_settings(seed)
        axes = x.ndim - 2

        def convolve(x, f, settings=settings):
            return ops.conv(x, f, **settings)

        @partial(jax.jit, compiler_options=PLAIN)
        def both(x, f, g, settings=settings, axes=axes, convolve=convolve):
            closed = (
                ops.conv_input_gradient(g, f, x.shape[1:-1], **settings),
                ops.conv_filter_gradient(x, g, f.shape[:axes], **settings),
            )
            return closed, jax.vjp(convolve, x, f)[1](g)

        try:
            out = jax.eval_shape(convolve, x, f)
        except UsageError:  # the window does not fit
            continue
        tried += 1
        closed, automatic = both(x, f, np.random.default_rng(seed).normal(size=out.shape))
        for ours, expected in zip(closed, automatic, strict=True):
            np.testing.assert_allclose(ours, expected, **CLOSE, err_msg=f"{seed}: {settings}")
        both.clear_cache()  # hundreds of programs exhaust the process's memory mappings
    assert tried > len(seeds) / 2


@pytest.mark.parametrize("case", CASES)
def test_both_gradients_equal_torchs(torch_cases, case):
    case = torch_cases[f"conv/{case}"]
    axes = case["x"].ndim - 2
    settings = {k: v for k, v in case["settings"].items() if k != "output_padding"}
    settings["padding"] = [(p, p) for p in settings.get("padding", [0] * axes)]
    np.testing.assert_allclose(
        ops.conv_filter_gradient(case["x"], case["g"], case["kernel"].shape[:axes], **settings),
        case["filter_gradient"],
        **CLOSE,
    )
    np.testing.assert_allclose(
        ops.conv_input_gradient(case["g"], case["kernel"], case["x"].shape[1:-1], **settings),
        case["input_gradient"],
        **CLOSE,
    )


def test_the_slides_3x3_input_and_2x2_filter():
    rng = np.random.default_rng(0)
    x, f, g = rng.normal(size=(3, 3)), rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    # dL/dF is the input convolved with dL/dO
    np.testing.assert_allclose(
        ops.conv_filter_gradient(plane(x), plane(g), (2, 2), padding="valid")[..., 0, 0],
        ops.conv(plane(x), kernel(g), padding="valid")[0, ..., 0],
        **CLOSE,
    )
    # dL/dX is the flipped filter, fully convolved with dL/dO
    gradient = ops.conv_input_gradient(plane(g), kernel(f), (3, 3), padding="valid")[0, ..., 0]
    flipped = f[::-1, ::-1]
    np.testing.assert_allclose(
        gradient, ops.conv(plane(g), kernel(flipped), padding="full")[0, ..., 0], **CLOSE
    )
    # the slide prints dL/do12 f22 + dL/dx12 f21 + ... for this one
    centre = g[0, 0] * f[1, 1] + g[0, 1] * f[1, 0] + g[1, 0] * f[0, 1] + g[1, 1] * f[0, 0]
    np.testing.assert_allclose(gradient[1, 1], centre, **CLOSE)
