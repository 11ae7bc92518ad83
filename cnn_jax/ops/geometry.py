"""Sizes, receptive fields and connection counts of windows that slide over a grid."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cnn_jax.errors import UsageError, unknown

Padding = str | int | Sequence[tuple[int, int]]


def per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Return one integer an axis from one integer for all or from a sequence of them."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def padding_pairs(
    padding: Padding, sizes: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the zeros to add before and after each spatial axis.

    Args:
      padding: "valid" (none), "same" (what keeps the size at stride 1, whatever the stride; an
        odd zero goes after, as in the PyTorch models), "full" (every overlap), one integer for
        all sides, or (before, after) pairs; a negative number crops.
      sizes: kernel sizes.
      dilations: spacing of the kernel's taps, in pixels.

    Raises:
      UsageError: another name than these three.
    """
    if isinstance(padding, str):
        spans = [(size - 1) * dilation for size, dilation in zip(sizes, dilations, strict=True)]
        if padding == "valid":
            return [(0, 0) for _ in spans]
        if padding == "same":
            return [(span // 2, span - span // 2) for span in spans]
        if padding == "full":
            return [(span, span) for span in spans]
        raise unknown("padding", padding, ("valid", "same", "full"))
    if isinstance(padding, int):
        return [(padding, padding) for _ in sizes]
    return [(before, after) for before, after in padding]


class Window(NamedTuple):
    """A window on one axis: taps, step, zeros added before and after, spacing of the taps."""

    size: int
    stride: int = 1
    padding: str | int | tuple[int, int] = 0
    dilation: int = 1

    @property
    def extent(self) -> int:
        """The pixels from the first tap to the last."""
        return (self.size - 1) * self.dilation + 1

    @property
    def zeros(self) -> tuple[int, int]:
        """The zeros before and after, in numbers."""
        padding = [self.padding] if isinstance(self.padding, tuple) else self.padding
        return padding_pairs(padding, (self.size,), (self.dilation,))[0]


def output_size(size: int, window: Window, *, ceil_mode: bool = False) -> int:
    """Return the number of windows on an axis: (N - F + P) / S + 1, rounded down.

    N is the size, F the window's extent, P the zeros added and S the stride. In ceil mode a last
    window may reach over the end, unless it would start beyond the pixels and the zeros before
    them (PyTorch's rule, which torchvision's GoogLeNet needs).

    Raises:
      UsageError: no window fits.
    """
    before, after = window.zeros
    room = size + before + after - window.extent
    if room < 0:
        raise UsageError(
            f"a window of extent {window.extent} does not fit {size} pixels with {before} + "
            f"{after} zeros; use a larger input, a smaller window or more padding"
        )
    outputs = room // window.stride + 1
    if ceil_mode and room % window.stride and outputs * window.stride < size + before:
        outputs += 1
    return outputs


def unused_pixels(size: int, window: Window) -> int:
    """Return how many positions at the padded axis' end no window reaches: (N - F + P) mod S."""
    return (size + sum(window.zeros) - window.extent) % window.stride


def paddings(size: int, outputs: int, window: Window) -> range:
    """Return the total numbers of zeros with which `size` pixels give `outputs` windows.

    With outputs = size it answers which padding keeps the size; at stride 1 the answer is unique,
    F - 1. The window's own padding is not looked at.
    """
    least = (outputs - 1) * window.stride + window.extent - size
    return range(max(least, 0), max(least + window.stride, 0))


def input_sizes(outputs: int, window: Window) -> range:
    """Return the sizes that give `outputs` windows: `stride` many, because of the rounding."""
    least = (outputs - 1) * window.stride + window.extent - sum(window.zeros)
    return range(max(least, 1), max(least + window.stride, 1))


def strides(size: int, outputs: int, window: Window) -> list[int]:
    """Return the strides at which `size` pixels give `outputs` > 1 windows."""
    room = size + sum(window.zeros) - window.extent
    return [stride for stride in range(1, room + 1) if room // stride + 1 == outputs]


def filter_sizes(size: int, outputs: int, window: Window) -> list[int]:
    """Return the filter sizes with which `size` pixels give `outputs` windows.

    A named padding ("same") is taken anew for each size.
    """
    longest = size + (0 if isinstance(window.padding, str) else sum(window.zeros))
    found = []
    for taps in range(1, longest + 1):
        candidate = window._replace(size=taps)
        room = size + sum(candidate.zeros) - candidate.extent
        if room >= 0 and room // window.stride + 1 == outputs:
            found.append(taps)
    return found


class ReceptiveField(NamedTuple):
    """What the units of one layer see of one axis of the input."""

    size: int  # pixels a unit sees
    step: int  # pixels between neighbouring units
    start: int  # first pixel of the first unit; negative inside the padding

    def of(self, unit: int) -> range:
        """Return the pixels of one unit; some may lie in the padding."""
        first = self.start + unit * self.step
        return range(first, first + self.size)


def receptive_fields(windows: Sequence[Window]) -> list[ReceptiveField]:
    """Return the receptive field after each layer of a chain, the first window's first.

    size_l = size_{l-1} + (extent_l - 1) step_{l-1} and step_l = stride_l step_{l-1}: fields grow
    linearly with depth, and geometrically where strides are larger than one.
    Araujo, Norris & Sim 2019, equations 2 to 4.
    """
    fields = []
    size, step, start = 1, 1, 0
    for window in windows:
        size += (window.extent - 1) * step
        start -= window.zeros[0] * step
        step *= window.stride
        fields.append(ReceptiveField(size, step, start))
    return fields


class Cost(NamedTuple):
    """What one layer costs for one example, biases left out."""

    outputs: tuple[int, ...]  # positions along each axis
    parameters: int  # of a convolution: one kernel for all positions
    local_parameters: int  # of a locally connected layer: one kernel a position
    dense_parameters: int  # of a dense layer from every input to every output: m * n
    multiplications: int  # of the convolution; those with padded zeros count
    connections: int  # pairs of an input and an output joined; padded zeros do not count


def conv_cost(
    sizes: Sequence[int],
    channels: int,
    features: int,
    windows: Window | Sequence[Window],
    *,
    groups: int = 1,
) -> Cost:
    """Count a convolution's parameters, multiplications and connections.

    Args:
      sizes: the input's spatial sizes.
      channels, features: input and output channels.
      windows: one for all axes, or one an axis.
      groups: each output sees channels / groups inputs a pixel.
    """
    if isinstance(windows, Window):
        windows = (windows,) * len(sizes)
    outputs = tuple(output_size(size, window) for size, window in zip(sizes, windows, strict=True))
    kernel = math.prod(window.size for window in windows) * channels // groups * features
    positions = math.prod(outputs)
    pairs = math.prod(
        sum(
            0 <= unit * window.stride + tap * window.dilation - window.zeros[0] < size
            for unit in range(count)
            for tap in range(window.size)
        )
        for size, count, window in zip(sizes, outputs, windows, strict=True)
    )
    return Cost(
        outputs=outputs,
        parameters=kernel,
        local_parameters=kernel * positions,
        dense_parameters=math.prod(sizes) * channels * positions * features,
        multiplications=kernel * positions,
        connections=pairs * channels // groups * features,
    )
