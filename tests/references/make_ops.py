"""Writes ops.npz: what PyTorch computes, in float64, for the operations of cnn_jax.ops.

Run with torch 2.13 in the environment: python tests/references/make_ops.py

Each case is stored as NAME/settings (JSON), the inputs and the results; arrays are laid out as in
cnn_jax (channels last, kernels [*sizes, in, out]).
"""

import json
import pathlib
import zlib

import numpy as np
import torch
import torch.nn.functional as F

CONVOLUTIONS = {
    "1d": {
        "spatial": [11],
        "sizes": [4],
        "channels": 3,
        "features": 2,
        "stride": [3],
        "padding": [2],
    },
    "2d": {"spatial": [7, 6], "sizes": [3, 2], "channels": 2, "features": 3},
    "2d_strided": {
        "spatial": [9, 8],
        "sizes": [3, 3],
        "channels": 2,
        "features": 3,
        "stride": [2, 3],
        "padding": [1, 2],
    },
    "2d_dilated": {
        "spatial": [10, 9],
        "sizes": [3, 2],
        "channels": 2,
        "features": 2,
        "padding": [2, 1],
        "dilation": [2, 3],
    },
    "2d_grouped": {
        "spatial": [8, 7],
        "sizes": [3, 3],
        "channels": 4,
        "features": 6,
        "stride": [2, 2],
        "padding": [1, 1],
        "groups": 2,
    },
    "2d_depthwise": {
        "spatial": [8, 7],
        "sizes": [3, 3],
        "channels": 3,
        "features": 6,
        "padding": [1, 1],
        "groups": 3,
    },
    "3d": {
        "spatial": [5, 6, 4],
        "sizes": [2, 3, 2],
        "channels": 2,
        "features": 2,
        "stride": [1, 2, 1],
        "padding": [0, 1, 1],
    },
}
POOLS = {
    "plain": {"size": 2, "stride": 2, "padding": 0},
    "overlapping": {"size": 3, "stride": 2, "padding": 1},
    "ceil": {"size": 3, "stride": 2, "padding": 0, "ceil_mode": True},
    "ceil_padded": {"size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    # a fifth window would start at 7, in the padding after the 7 rows: it is dropped
    "ceil_dropped": {"size": 2, "stride": 2, "padding": 1, "ceil_mode": True},
    "ceil_uneven": {"size": [3, 2], "stride": [2, 3], "padding": [1, 0], "ceil_mode": True},
}


def channels_first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def channels_last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1).copy()


def small(index):
    return channels_last(index).astype(np.int8)


def torch_kernel(kernel):
    axes = kernel.ndim - 2
    return torch.from_numpy(kernel.transpose(axes + 1, axes, *range(axes)).copy())


def our_kernel(weight):
    return weight.detach().numpy().transpose(*range(2, weight.ndim), 1, 0).copy()


def main():
    arrays = {}

    def keep(name, settings, **values):
        arrays[f"{name}/settings"] = np.array(json.dumps(settings))
        arrays.update({f"{name}/{key}": value for key, value in values.items()})

    for name, settings in CONVOLUTIONS.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        spatial, sizes = settings["spatial"], settings["sizes"]
        channels, features = settings["channels"], settings["features"]
        options = {
            k: settings[k] for k in ("stride", "padding", "dilation", "groups") if k in settings
        }
        x = rng.normal(size=(2, *spatial, channels))
        kernel = rng.normal(size=(*sizes, channels // options.get("groups", 1), features))
        xt, wt = channels_first(x).requires_grad_(), torch_kernel(kernel).requires_grad_()
        convolve = [F.conv1d, F.conv2d, F.conv3d][len(sizes) - 1]
        out = convolve(xt, wt, **options)
        g = rng.normal(size=channels_last(out).shape)
        out.backward(channels_first(g))
        transpose = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][len(sizes) - 1]
        extra = [step - 1 for step in options.get("stride", [1] * len(sizes))]
        back = transpose(channels_first(g), wt.detach(), output_padding=extra, **options)
        keep(
            f"conv/{name}",
            options | {"output_padding": extra},
            x=x,
            kernel=kernel,
            g=g,
            out=channels_last(out),
            input_gradient=channels_last(xt.grad),
            filter_gradient=our_kernel(wt.grad),
            transposed=channels_last(back),
        )

    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, size=(2, 7, 6, 3)).astype(np.float64)  # many ties
    arrays["pool/x"] = x
    for name, settings in POOLS.items():
        xt = channels_first(x).requires_grad_()
        out, index = F.max_pool2d(
            xt,
            settings["size"],
            settings["stride"],
            settings["padding"],
            ceil_mode=settings.get("ceil_mode", False),
            return_indices=True,
        )
        g = rng.normal(size=channels_last(out).shape)
        out.backward(channels_first(g))
        average = {
            f"average_{count}": channels_last(
                F.avg_pool2d(
                    channels_first(x),
                    settings["size"],
                    settings["stride"],
                    settings["padding"],
                    ceil_mode=settings.get("ceil_mode", False),
                    count_include_pad=count,
                )
            )
            for count in (True, False)
        }
        keep(
            f"pool/{name}",
            settings,
            g=g,
            max=channels_last(out),
            index=small(index),
            gradient=channels_last(xt.grad),
            **average,
        )
    x = rng.normal(size=(2, 7, 5, 2))
    for counts in ([3, 2], [7, 5], [9, 4], [1, 1]):
        keep(
            f"adaptive/{counts[0]}x{counts[1]}",
            {"counts": counts},
            x=x,
            max=channels_last(F.adaptive_max_pool2d(channels_first(x), counts)),
            average=channels_last(F.adaptive_avg_pool2d(channels_first(x), counts)),
        )
    values, index = F.max_pool2d(channels_first(x), 2, return_indices=True)
    keep(
        "unpool",
        {},
        values=channels_last(values),
        index=small(index),
        out=channels_last(F.max_unpool2d(values, index, 2, output_size=(7, 5))),
    )
    keep(
        "l2",
        {"size": 3, "stride": 2},
        x=x,
        out=channels_last(F.lp_pool2d(channels_first(x), 2, 3, 2)),
    )
    x = 3 * rng.normal(size=(2, 3, 2, 7))
    for size in (3, 4, 5):
        out = F.local_response_norm(channels_first(x), size, alpha=0.5, beta=0.75, k=2.0)
        keep(
            f"lrn/{size}",
            {"size": size, "alpha": 0.5, "beta": 0.75, "k": 2.0},
            x=x,
            out=channels_last(out),
        )
    np.savez_compressed(pathlib.Path(__file__).with_name("ops.npz"), **arrays)


if __name__ == "__main__":
    main()
