"""The lecture's worked examples of convolution and pooling, computed by cnn_jax.ops.

Each function returns numbers and small arrays by name; experiments.convolution shows them.
Everything is float64: call under jax.enable_x64().
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from PIL import Image

from cnn_jax import ops
from cnn_jax.data import decoding
from cnn_jax.lecture import symbols
from cnn_jax.ops import Window

Results = dict[str, Any]

GRID_FILTERS = {
    "vertical edges": np.array([[1.0, 0.0, -1.0]] * 3),
    "horizontal edges": np.array([[1.0, 0.0, -1.0]] * 3).T,
}
SLIDE_POOL = np.array([[0.0, 4, 7, 8], [9, 2, 4, 5], [6, 7, 3, 4], [8, 2, 1, 5]])


def _plane(x):
    """One example of one channel."""
    return jnp.asarray(x)[None, ..., None]


def _kernel(f):
    """One feature of one channel."""
    return jnp.asarray(f)[..., None, None]


def correlate(x: ArrayLike, f: ArrayLike, **settings: Any) -> Array:
    """Cross-correlate two matrices (or vectors)."""
    return ops.conv(_plane(x), _kernel(f), **({"padding": "valid"} | settings))[0, ..., 0]


def laser_sensor(seed: int, steps: int = 160, noise: float = 0.25, ages: int = 9) -> Results:
    """Smooth noisy measurements of a spaceship's place by s(t) = sum over a of x(a) w(t - a).

    The weights fall off linearly with age and add up to one; only the past is looked at.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(steps)
    place = 3 + t / 80 + np.sin(t / 25)
    measured = place + rng.normal(scale=noise, size=steps)
    weights = np.arange(ages, 0, -1.0)
    weights /= weights.sum()
    estimate = np.asarray(
        ops.true_conv(_plane(measured), _kernel(weights), padding="full")[0, :steps, 0]
    )
    full = slice(ages - 1, None)  # before, fewer measurements than weights are there

    def rms(error):
        return float(np.sqrt(np.mean(np.square(error[full]))))

    direct = [
        sum(measured[a] * weights[s - a] for a in range(s - ages + 1, s + 1)) for s in t[full]
    ]
    return {
        "place": place,
        "measured": measured,
        "weights": weights,
        "estimate": estimate[full],
        "error_measured": rms(measured - place),
        "error_smoothed": rms(np.concatenate([place[: ages - 1], estimate[full]]) - place),
        # independent errors of deviation s average to s sqrt(sum of w^2); the rest is the lag
        "noise_kept": float(np.sqrt(np.sum(weights**2))),
        "difference_from_the_sum": float(np.max(np.abs(estimate[full] - direct))),
    }


def letters() -> Results:
    """Write out the 3x4 input a..l under the filter w x / y z, not flipped and flipped."""
    x = np.array(list("abcdefghijkl"), dtype=object).reshape(3, 4)
    f = np.array([["w", "x"], ["y", "z"]], dtype=object)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 5)), rng.normal(size=(3, 2))
    full = ops.true_conv(_plane(a), _kernel(b)), ops.true_conv(_plane(b), _kernel(a))
    correlated = (correlate(a, b, padding="full"), correlate(b, a, padding="full"))
    return {
        "correlation": symbols.sums_of_products(correlate, x, f),
        "convolution": symbols.sums_of_products(
            lambda x, f: ops.true_conv(_plane(x), _kernel(f), padding="valid")[0, ..., 0], x, f
        ),
        "convolution_exchanged_difference": float(jnp.abs(full[0] - full[1]).max()),
        "correlation_exchanged_difference": float(jnp.abs(correlated[0] - correlated[1]).max()),
    }


def output_sizes() -> Results:
    """Slide a 3x3 filter over the 7x7 grid at strides 1 to 4, and ask the formula backwards."""
    rows = []
    for stride in (1, 2, 3, 4):
        window = Window(3, stride)
        out = correlate(np.ones((7, 7)), np.ones((3, 3)), stride=stride)
        rows.append(
            {
                "stride": stride,
                "quotient": (7 - 3) / stride + 1,
                "output": ops.output_size(7, window),
                "computed": out.shape[0],
                "unseen": ops.unused_pixels(7, window),
                "inputs": list(ops.input_sizes(ops.output_size(7, window), window)),
            }
        )
    keeping = {f: next(iter(ops.paddings(7, 7, Window(f)))) for f in (1, 3, 5, 7)}
    return {
        "strides": rows,
        "zeros_that_keep_the_size": keeping,
        "filters_giving_5": ops.filter_sizes(7, 5, Window(3)),
        "strides_giving_3": ops.strides(7, 3, Window(3)),
    }


def costs() -> Results:
    """Count what the lecture counts: one 5x5 filter over a 32x32 image of three channels."""
    cost = ops.conv_cost((32, 32), 3, 1, Window(5))
    # the transforms of a whole photograph: 320 x 280 pixels, neighbours' differences
    edges = ops.conv_cost((280, 320), 1, 1, (Window(1), Window(2)))
    line = {k: ops.conv_cost((5,), 1, 1, Window(k, padding="same"))._asdict() for k in (1, 3, 5)}
    return {"filter": cost._asdict(), "edges": edges._asdict(), "line": line}


def edge_filters() -> Results:
    """Apply the lecture's two 3x3 filters to its two 6x6 arrays."""
    columns = np.tile(np.repeat([1.0, 0.0], 3), (6, 1))
    vertical, horizontal = GRID_FILTERS.values()
    return {
        "columns": columns,
        "rows": columns.T,
        "vertical": vertical,
        "horizontal": horizontal,
        "columns_by_vertical": correlate(columns, vertical),
        "rows_by_horizontal": correlate(columns.T, horizontal),
        "columns_by_horizontal": correlate(columns, horizontal),
    }


def photograph_edges(grey: Float[np.ndarray, "h w"]) -> Results:
    """Apply [1 -1] and the two 3x3 filters to a grey photograph."""
    return {
        "difference": np.asarray(correlate(grey, np.array([[1.0, -1.0]]))),
        **{name: np.asarray(correlate(grey, f)) for name, f in GRID_FILTERS.items()},
    }


def receptive_field_growth(depth: int = 8) -> Results:
    """Follow the receptive field of 3-tap layers with depth: plain, strided, dilated, pooled."""
    chains = {
        "stride 1": [Window(3)] * depth,
        "stride 2": [Window(3, 2)] * depth,
        "dilation 1, 2, 4, ...": [Window(3, 1, 0, 2**i) for i in range(depth)],
        "stride 1, every second one pooled": [
            window
            for i in range(depth)
            for window in ([Window(3)] if i % 2 == 0 else [Window(3), Window(2, 2)])
        ],
    }
    sizes = {}
    for name, chain in chains.items():
        fields = ops.receptive_fields(chain)
        sizes[name] = [
            field.size for field, window in zip(fields, chain, strict=True) if window.size == 3
        ]
    return sizes


def equivariance(grey: Float[np.ndarray, "h w"], seed: int) -> Results:
    """Measure |f(g(x)) - g(f(x))| / |f(g(x))| for a random filter f and several changes g."""
    f = np.random.default_rng(seed).normal(size=(5, 5))
    f -= f.mean()  # else every change is small beside the mean grey
    top, left = (np.array(grey.shape) - 128) // 2
    x = np.asarray(grey)[top : top + 128, left : left + 128]
    changes = {
        "shift by 7 and 4 pixels": lambda x: jnp.roll(x, (7, 4), (0, 1)),
        "brightness doubled": lambda x: 2 * x,
        "shift, then doubled": lambda x: 2 * jnp.roll(x, (7, 4), (0, 1)),
        "rotation by 90 degrees": jnp.rot90,
        "mirrored": jnp.fliplr,
        "enlarged twice": lambda x: jnp.repeat(jnp.repeat(x, 2, 0), 2, 1),
    }
    measured = {}
    for name, change in changes.items():
        before, after = (
            change(correlate(x, f, padding="same")),
            correlate(change(x), f, padding="same"),
        )
        inside = (slice(16, 110),) * 2  # away from the border's zeros
        difference = jnp.linalg.norm((before - after)[inside]) / jnp.linalg.norm(after[inside])
        measured[name] = float(difference)
    return measured


def pooling_example() -> Results:
    """Pool the lecture's 4x4 array and pass a gradient of ones back."""
    x = _plane(SLIDE_POOL)
    out, vjp = jax.vjp(lambda x: ops.max_pool(x, 2), x)
    values, index = ops.max_pool_with_argmax(x, 2)
    return {
        "input": SLIDE_POOL,
        "output": out[0, ..., 0],
        "gradient": vjp(jnp.ones_like(out))[0][0, ..., 0],
        "argmax": index[0, ..., 0],
        "unpooled": ops.max_unpool(values, index, (4, 4))[0, ..., 0],
        "average": ops.avg_pool(x, 2)[0, ..., 0],
        "l2": ops.l2_pool(x, 2)[0, ..., 0],
        "parameters": 0,
    }


def pooled_photograph(rgb: Float[np.ndarray, "h w 3"]) -> dict[str, np.ndarray]:
    """Pool a photograph by 8x8 windows, half overlapping, in every way."""
    x = jnp.asarray(rgb)[None]
    pools = {
        "maximum": ops.max_pool(x, 8, 4),
        "average": ops.avg_pool(x, 8, 4),
        "Gaussian, sigma 1.5": ops.gaussian_pool(x, 8, 4, sigma=1.5),
        "L2 norm / 8": ops.l2_pool(x, 8, 4) / 8,
    }
    return {name: np.asarray(pooled[0]) for name, pooled in pools.items()}


def pooling_invariance(grey: Float[np.ndarray, "h w"]) -> Results:
    """Measure how much detected edges change when the photograph moves by one to four pixels.

    The change is |a - b| / |b| between the detector stage's outputs, after pooling at stride 1.
    """
    detected = jnp.maximum(correlate(grey, GRID_FILTERS["vertical edges"]), 0)
    curves = {}
    pools = {"no pooling": lambda x: x}
    for size in (3, 7, 15):
        pools[f"maximum, {size}x{size}"] = lambda x, size=size: ops.max_pool(x, size, 1)
    pools["average, 7x7"] = lambda x: ops.avg_pool(x, 7, 1)
    for name, pool in pools.items():
        views = [_plane(detected[:, shift : detected.shape[1] - 4 + shift]) for shift in range(5)]
        before, *_ = pooled = [np.asarray(pool(view)) for view in views]
        curves[name] = [
            float(np.linalg.norm(after - before) / np.linalg.norm(before)) for after in pooled
        ]
    line = np.array([0.1, 1.0, 0.2, 0.1])
    moved = np.array([0.3, 0.1, 1.0, 0.2])
    pooled = [
        np.asarray(ops.max_pool(jnp.asarray(row)[None, :, None], 3, 1, "same")[0, :, 0])
        for row in (line, moved)
    ]
    return {
        "change": curves,
        "line": line,
        "line_moved": moved,
        "line_pooled": pooled[0],
        "line_moved_pooled": pooled[1],
        "inputs_changed": int((line != moved).sum()),
        "outputs_changed": int((pooled[0] != pooled[1]).sum()),
    }


def bar(degrees: float, size: int = 15) -> Float[np.ndarray, "size size"]:
    """Draw a soft bar through the centre, at an angle."""
    at = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(at, at, indexing="ij")
    angle = math.radians(degrees)
    across = x * math.sin(angle) + y * math.cos(angle)
    return np.exp(-((across / 1.5) ** 2)) * (np.hypot(x, y) < size / 2)


def learned_invariance(detectors: int = 6) -> Results:
    """Answer to a turning bar: detectors of single angles, and maxout across them."""
    kernel = np.stack([bar(180 * i / detectors) for i in range(detectors)], -1)[:, :, None]
    kernel /= np.linalg.norm(kernel, axis=(0, 1))
    angles = np.arange(0, 181, 3)
    images = np.stack([bar(a) for a in angles])[..., None]
    answers = ops.conv(jnp.asarray(images), jnp.asarray(kernel), padding="valid")[:, 0, 0]
    answers = answers / answers.max()
    pooled = ops.maxout(answers, detectors)[:, 0]
    return {
        "angles": angles,
        "answers": np.asarray(answers),
        "pooled": np.asarray(pooled),
        "least_of_one": float(answers[:, 0].min()),
        "least_of_maxout": float(pooled.min()),
    }


def any_input_size(seed: int) -> Results:
    """Give features of one length to images of several sizes."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, 3, 16))
    rows = []
    for h, w in ((32, 32), (48, 64), (97, 61)):
        maps = ops.conv(jnp.asarray(rng.normal(size=(1, h, w, 3))), jnp.asarray(kernel))
        rows.append(
            {
                "image": [h, w],
                "flattened": int(maps.size),
                "pyramid": int(ops.spatial_pyramid_pool(maps, (1, 2, 4)).size),
                "adaptive_2x2": int(ops.adaptive_avg_pool(maps, 2).size),
                "global": int(ops.global_avg_pool(maps).size),
            }
        )
    return {"rows": rows}


def pooling_with_downsampling() -> Results:
    """Pool the slide's line of six units by windows of three at every second place.

    The last window reaches over the end.
    """
    line = np.array([0.1, 1.0, 0.2, 0.1, 0.0, 0.1])
    pooled = ops.max_pool(jnp.asarray(line)[None, :, None], 3, 2, [(0, 1)])
    return {"input": line, "output": np.asarray(pooled[0, :, 0])}


def strided_convolution(grey: Float[np.ndarray, "h w"], seed: int) -> Results:
    """Compare stride 2 with stride 1 and dropping every second result."""
    f = np.random.default_rng(seed).normal(size=(3, 3))
    strided, dropped = correlate(grey, f, stride=2), correlate(grey, f)[::2, ::2]
    cost = [ops.conv_cost(grey.shape, 1, 1, Window(3, s)).multiplications for s in (1, 2)]
    return {
        "difference": float(jnp.abs(strided - dropped).max()),
        "multiplications_stride_1": cost[0],
        "multiplications_stride_2": cost[1],
    }


def zero_padding(size: int = 16, taps: int = 6) -> Results:
    """Shrink an axis layer by layer without padding, and keep its size with it."""
    valid = [size]
    while valid[-1] >= taps:
        valid.append(ops.output_size(valid[-1], Window(taps)))
    same = [size]
    for _ in valid[1:]:
        same.append(ops.output_size(same[-1], Window(taps, padding="same")))
    full = [ops.output_size(size, Window(taps, padding="full"))]
    return {"size": size, "taps": taps, "valid": valid, "same": same, "full": full[0]}


def connections(inputs: int = 5, taps: int = 2, tiles: int = 2) -> Results:
    """Tell apart the weights of local, tiled, shared and dense layers on a short line."""
    window = Window(taps)
    cost = ops.conv_cost((inputs,), 1, 1, window)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, inputs, 1)))
    kernels = jnp.asarray(rng.normal(size=(tiles, taps, 1, 1)))
    repeated = kernels[jnp.arange(cost.outputs[0]) % tiles]
    tiled_is_local = jnp.abs(ops.tiled_conv(x, kernels) - ops.local_conv(x, repeated)).max()
    shared_is_tiled = jnp.abs(
        ops.tiled_conv(x, kernels[:1]) - ops.conv(x, kernels[0], padding="valid")
    ).max()
    return {
        "inputs": inputs,
        "taps": taps,
        "tiles": tiles,
        "outputs": cost.outputs[0],
        "parameters": {
            "convolution": cost.parameters,
            "tiled": cost.parameters * tiles,
            "local": cost.local_parameters,
            "dense": cost.dense_parameters,
        },
        "tiled_difference_from_local": float(tiled_is_local),
        "one_tile_difference_from_convolution": float(shared_is_tiled),
    }


def backpropagation(seed: int) -> Results:
    """Derive the 3x3 by 2x2 example's outputs and both gradients, symbol by symbol."""
    x, f = symbols.matrix_of_names("x", 3, 3), symbols.matrix_of_names("f", 2, 2)
    g = symbols.matrix_of_names("∂L/∂o", 2, 2)

    def filter_gradient(g, x):
        return ops.conv_filter_gradient(_plane(x), _plane(g), (2, 2), padding="valid")[..., 0, 0]

    def input_gradient(g, f):
        return ops.conv_input_gradient(_plane(g), _kernel(f), (3, 3), padding="valid")[0, ..., 0]

    def chain_rule(argument):
        """The same gradient from jax.vjp: sum over o of dL/do times do/d(argument)."""

        def gradient(g, other):
            free = jnp.zeros((2, 2) if argument == "f" else (3, 3))
            pair = (lambda f: (other, f)) if argument == "f" else (lambda x: (x, other))
            return jax.vjp(lambda free: correlate(*pair(free)), free)[1](g)[0]

        return gradient

    by_filter = symbols.sums_of_products(filter_gradient, g, x, times=" ")
    by_input = symbols.sums_of_products(input_gradient, g, f, times=" ")
    agree = np.array_equal(
        by_filter, symbols.sums_of_products(chain_rule("f"), g, x, times=" ")
    ) and np.array_equal(by_input, symbols.sums_of_products(chain_rule("x"), g, f, times=" "))
    rng = np.random.default_rng(seed)
    numbers = [jnp.asarray(rng.normal(size=size)) for size in ((3, 3), (2, 2), (2, 2))]
    xn, fn, gn = numbers
    as_convolution = correlate(xn, gn)
    as_full = correlate(gn, jnp.flip(fn), padding="full")
    return {
        "output": symbols.sums_of_products(correlate, x, f),
        "filter_gradient": by_filter,
        "input_gradient": by_input,
        "equal_to_the_chain_rule": bool(agree),
        "filter_gradient_difference": float(
            jnp.abs(as_convolution - filter_gradient(gn, xn)).max()
        ),
        "input_gradient_difference": float(jnp.abs(as_full - input_gradient(gn, fn)).max()),
    }


def closed_form_gradients(seed: int) -> list[Results]:
    """Compare the closed forms with jax.grad where stride, padding, dilation and groups differ."""
    rng = np.random.default_rng(seed)
    rows = []
    for stride, padding, dilation, groups in (
        (1, "valid", 1, 1),
        (2, "same", 1, 1),
        (3, 1, 2, 2),
        (2, "full", 3, 4),
    ):
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        x = jnp.asarray(rng.normal(size=(2, 12, 11, 4)))
        f = jnp.asarray(rng.normal(size=(3, 3, 4 // groups, 8)))

        @jax.jit
        def differences(x, f, g, settings=settings):
            by_x, by_f = jax.vjp(lambda x, f: ops.conv(x, f, **settings), x, f)[1](g)
            by_filter = ops.conv_filter_gradient(x, g, (3, 3), **settings) - by_f
            by_input = ops.conv_input_gradient(g, f, (12, 11), **settings) - by_x
            return jnp.abs(by_filter).max(), jnp.abs(by_input).max()

        out = jax.eval_shape(lambda x, f, s=settings: ops.conv(x, f, **s), x, f)
        by_filter, by_input = differences(x, f, jnp.asarray(rng.normal(size=out.shape)))
        rows.append(settings | {"filter": float(by_filter), "input": float(by_input)})
    return rows


def load_image(path: str, side: int = 480) -> Float[np.ndarray, "h w 3"]:
    """Read a photograph, its longer side at most `side` pixels, as 0..1.

    Raises OSError where there is no such file, UsageError where it is no image.
    """
    image = decoding.decode(Path(path).read_bytes(), 3)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image, float) / 255
