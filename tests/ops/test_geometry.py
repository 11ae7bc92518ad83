"""Sizes, receptive fields and counts, by formula and by looking."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, ops
from cnn_jax.ops import Window


@pytest.mark.parametrize(
    ("size", "window", "outputs"),
    [
        (7, Window(3), 5),  # the lecture's grid
        (7, Window(3, stride=2), 3),
        (32, Window(5), 28),
        (227, Window(11, stride=4), 55),  # AlexNet's conv1 and pool1
        (55, Window(3, stride=2), 27),
        (27, Window(5, padding=2), 27),
        (224, Window(7, stride=2, padding=3), 112),  # ResNet's stem
    ],
)
def test_output_size_of_published_layers(size, window, outputs):
    assert ops.output_size(size, window) == outputs


def some_windows():
    for taps, stride, dilation in itertools.product((1, 2, 3, 5), (1, 2, 3), (1, 2)):
        for padding in (0, 1, "same", "full", (0, 2)):
            yield Window(taps, stride, padding, dilation)


def test_output_size_is_the_size_that_conv_gives():
    for window, size in itertools.product(some_windows(), (5, 9, 10)):
        padding = [window.padding] if isinstance(window.padding, tuple) else window.padding

        def convolve(x, f, window=window, padding=padding):
            return ops.conv(x, f, stride=window.stride, padding=padding, dilation=window.dilation)

        x, f = jnp.ones((1, size, 1)), jnp.ones((window.size, 1, 1))
        try:
            outputs = ops.output_size(size, window)
        except UsageError:
            with pytest.raises(UsageError):
                jax.eval_shape(convolve, x, f)
            continue
        assert jax.eval_shape(convolve, x, f).shape == (1, outputs, 1)


def test_inverse_questions_answer_exactly_what_the_formula_gives():
    for window, size in itertools.product(some_windows(), (6, 9, 10)):
        if window.extent > size + sum(window.zeros):
            continue
        outputs = ops.output_size(size, window)
        # which inputs
        inputs = [
            n
            for n in range(1, 40)
            if n + sum(window.zeros) >= window.extent and ops.output_size(n, window) == outputs
        ]
        assert list(ops.input_sizes(outputs, window)) == inputs
        assert size in inputs
        # which paddings
        paddings = [
            zeros
            for zeros in range(60)
            if size + zeros >= window.extent
            and ops.output_size(size, window._replace(padding=(0, zeros))) == outputs
        ]
        assert list(ops.paddings(size, outputs, window)) == paddings
        # which strides
        if outputs > 1:
            strides = [
                s
                for s in range(1, 40)
                if ops.output_size(size, window._replace(stride=s)) == outputs
            ]
            assert ops.strides(size, outputs, window) == strides
        # which filters
        assert window.size in ops.filter_sizes(size, outputs, window)
        for taps in ops.filter_sizes(size, outputs, window):
            assert ops.output_size(size, window._replace(size=taps)) == outputs


def test_the_padding_that_keeps_the_size_is_one_less_than_the_filter():
    for taps in (1, 3, 5, 7):
        assert list(ops.paddings(32, 32, Window(taps))) == [taps - 1]
        assert ops.output_size(32, Window(taps, padding="same")) == 32


def test_a_stride_that_does_not_divide_leaves_pixels_unseen():
    assert ops.unused_pixels(7, Window(3, stride=2)) == 0
    assert ops.unused_pixels(7, Window(3, stride=3)) == 1
    assert ops.unused_pixels(10, Window(7, stride=4)) == 3


def test_receptive_fields_grow_with_depth():
    fields = ops.receptive_fields([Window(3)] * 4)
    assert [field.size for field in fields] == [3, 5, 7, 9]
    strided = ops.receptive_fields([Window(3, stride=2)] * 4)
    assert [field.size for field in strided] == [3, 7, 15, 31]
    assert [field.step for field in strided] == [2, 4, 8, 16]


@pytest.mark.parametrize(
    "chain",
    [
        [Window(3), Window(3)],
        [Window(3, 2, "same"), Window(2, 2), Window(3, 1, 1)],
        [Window(5, 1, (1, 2), 2), Window(3, 3, 1)],
    ],
)
def test_receptive_fields_are_the_pixels_with_a_gradient(chain):
    size = 30

    def units(x):
        for window in chain:
            padding = [window.zeros]
            kernel = jnp.ones((window.size, 1, 1))
            x = ops.conv(x, kernel, stride=window.stride, padding=padding, dilation=window.dilation)
        return x[0, :, 0]

    slopes = jax.jacobian(units)(jnp.ones((1, size, 1)))[:, 0, :, 0]
    field = ops.receptive_fields(chain)[-1]
    for unit, row in enumerate(np.asarray(slopes)):
        seen = np.flatnonzero(row)
        assert set(seen) <= set(field.of(unit))
    middle = len(slopes) // 2  # far from the padding
    seen = np.flatnonzero(slopes[middle])
    assert (seen[0], seen[-1]) == (field.of(middle)[0], field.of(middle)[-1])


def test_the_lectures_75_parameters_and_their_multiplications():
    cost = ops.conv_cost((32, 32), 3, 1, Window(5))
    assert cost.outputs == (28, 28)
    assert cost.parameters == 75
    assert cost.multiplications == 28 * 28 * 5 * 5 * 3


def test_sparse_and_dense_connections():
    m, k = 5, 3
    cost = ops.conv_cost((m,), 1, 1, Window(k, padding="same"))
    assert cost.parameters == k
    assert cost.local_parameters == k * m
    assert cost.dense_parameters == m * m
    assert cost.connections == 13  # the ends' units see two inputs each
    assert ops.conv_cost((m,), 1, 1, Window(k)).connections == k * (m - k + 1)


def test_connections_are_the_nonzero_slopes():
    window = (Window(3, 2, 1), Window(2, 1, "full", 2))
    cost = ops.conv_cost((6, 5), 4, 6, window, groups=2)

    def convolve(x):
        return ops.conv(
            x,
            jnp.ones((3, 2, 2, 6)),
            stride=(2, 1),
            padding=[w.zeros for w in window],
            dilation=(1, 2),
            groups=2,
        )

    slopes = jax.jacobian(convolve)(jnp.ones((1, 6, 5, 4)))
    assert np.count_nonzero(slopes) == cost.connections
    assert slopes.size == cost.dense_parameters


def test_ceil_mode_adds_a_window_only_where_it_meets_a_pixel():
    assert ops.output_size(6, Window(3, 2)) == 2
    assert ops.output_size(6, Window(3, 2), ceil_mode=True) == 3
    assert ops.output_size(7, Window(3, 2), ceil_mode=True) == 3
    # it would start in the padding after the seven pixels
    assert ops.output_size(7, Window(2, 2, 1), ceil_mode=True) == 4


def test_a_window_that_does_not_fit_is_an_error_of_use():
    with pytest.raises(UsageError, match=r"extent 5 does not fit 2 pixels with 1 \+ 1 zeros"):
        ops.output_size(2, Window(5, padding=1))
