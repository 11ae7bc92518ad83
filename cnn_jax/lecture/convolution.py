"""The lecture's worked examples of convolution and pooling: their numbers and their sections."""

from pathlib import Path

import numpy as np
import sklearn.datasets

from cnn_jax.errors import UsageError
from cnn_jax.lecture import examples, figures
from cnn_jax.lecture.symbols import matrix_of_names as named
from cnn_jax.reports import html
from cnn_jax.reports.html import Html

CHINA = (
    "Photograph: china.jpg of scikit-learn's sample images, by danielbuechele, CC BY 2.0, "
    "www.flickr.com/photos/danielbuechele/6061409035"
)
SMALLEST = 160  # pixels a side, for the measurements


def read_photograph(path: str | None) -> tuple[np.ndarray, str]:
    """Return the RGB image in 0..1 and the line that says whose it is.

    Raises:
      UsageError: there is no such image, or it is too small.
    """
    if path is None:
        folder = Path(sklearn.datasets.__file__).parent / "images"
        return examples.load_image(folder / "china.jpg"), CHINA
    try:
        image = examples.load_image(path)
    except (OSError, UsageError) as error:
        reason = getattr(error, "strerror", None) or "it is no image that Pillow reads"
        raise UsageError(f"cannot read --image={path}: {reason}") from error
    if min(image.shape[:2]) < SMALLEST:
        raise UsageError(
            f"--image={path} is {image.shape[1]}x{image.shape[0]} pixels when its longer side is "
            f"480; both sides need {SMALLEST}"
        )
    return image, f"Photograph: {Path(path).name}"


def compute(photograph: np.ndarray, seed: int) -> examples.Results:
    """Return every example's numbers, by the example's name."""
    grey = photograph @ np.array([0.299, 0.587, 0.114])
    return {
        "laser_sensor": examples.laser_sensor(seed),
        "letters": examples.letters(),
        "output_sizes": examples.output_sizes(),
        "costs": examples.costs(),
        "edge_filters": examples.edge_filters(),
        "receptive_fields": examples.receptive_field_growth(),
        "connections": examples.connections(),
        "equivariance": examples.equivariance(grey, seed),
        "pooling": examples.pooling_example(),
        "pooling_invariance": examples.pooling_invariance(grey),
        "learned_invariance": examples.learned_invariance(),
        "pooling_with_downsampling": examples.pooling_with_downsampling(),
        "any_input_size": examples.any_input_size(seed),
        "strided_convolution": examples.strided_convolution(grey, seed),
        "zero_padding": examples.zero_padding(),
        "backpropagation": examples.backpropagation(seed),
        "closed_form_gradients": examples.closed_form_gradients(seed),
    }


def _by_position(symbol: str, sums: np.ndarray) -> list[tuple[str, str]]:
    """Return rows of a table: entry and the sum that it is."""
    names = named(symbol, *sums.shape)
    return [(name, f"= {text}") for name, text in zip(names.ravel(), sums.ravel(), strict=True)]


def sections(
    results: examples.Results, photograph: np.ndarray, attribution: str, workdir: Path
) -> list[Html]:
    """Draw the pictures into workdir/figures and return the page's sections."""
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)

    def picture(name, figure, caption):
        return html.figure(html.figure_png(figure, folder / f"{name}.png"), caption)

    grey = photograph @ np.array([0.299, 0.587, 0.114])
    edges = examples.photograph_edges(grey)
    laser, sizes, costs = (results[k] for k in ("laser_sensor", "output_sizes", "costs"))
    grids, pool, letters = (results[k] for k in ("edge_filters", "pooling", "letters"))
    back, invariance = results["backpropagation"], results["pooling_invariance"]
    connections, padding = results["connections"], results["zero_padding"]
    strided, turning = results["strided_convolution"], results["learned_invariance"]
    filter_cost, photo_cost = costs["filter"], costs["edges"]

    return [
        html.section(
            "A noisy laser sensor",
            "A sensor measures where a spaceship is, with errors. A weighted average of the latest "
            "measurements, recent ones weighing more, is a better estimate: "
            "s(t) = (x * w)(t) = sum over a of x(a) w(t - a), the convolution of x and w.",
            picture("laser_sensor", figures.laser_sensor(laser), "Measured and smoothed"),
            html.metrics(
                {
                    "error, measured (rms)": laser["error_measured"],
                    "error, smoothed (rms)": laser["error_smoothed"],
                    "share of the noise that stays": laser["noise_kept"],
                }
            ),
            "Averaging takes away noise and adds lag: the share of the noise that stays is the "
            "root of the sum of the squared weights, and the rest of the smoothed error is delay.",
        ),
        html.section(
            "Convolution and cross-correlation",
            "A true convolution flips the kernel, and so commutes; what networks compute is the "
            "cross-correlation, without the flip. Under the filter w x / y z the input "
            "a b c d / e f g h / i j k l becomes, written out from the operations' derivatives:",
            html.table(
                ["position", "cross-correlation", "convolution (kernel flipped)"],
                [
                    (
                        f"{i + 1}, {j + 1}",
                        letters["correlation"][i, j],
                        letters["convolution"][i, j],
                    )
                    for i, j in np.ndindex(2, 3)
                ],
            ),
            "Exchanging input and kernel changes a full convolution by "
            f"{letters['convolution_exchanged_difference']:.2g}, a full cross-correlation by "
            f"{letters['correlation_exchanged_difference']:.2f} (of a random example).",
        ),
        html.section(
            "Output size and stride",
            "A 3x3 filter on a 7x7 grid. N pixels under a filter of F at stride S, with P zeros "
            "added, give floor((N - F + P) / S) + 1 outputs.",
            picture(
                "strides",
                figures.strides(),
                "First, second and last window, and the centres of all; hatched pixels are seen by "
                "no window",
            ),
            html.table(
                [
                    "stride",
                    "(7 - 3) / S + 1",
                    "outputs a side",
                    "columns unseen",
                    "sizes with as many",
                ],
                [
                    (
                        row["stride"],
                        round(row["quotient"], 2),
                        row["output"],
                        row["unseen"],
                        ", ".join(map(str, row["inputs"])),
                    )
                    for row in sizes["strides"]
                ],
            ),
            "Asked backwards: the zeros that keep the size at stride 1 are "
            + ", ".join(f"{p} for {f}x{f}" for f, p in sizes["zeros_that_keep_the_size"].items())
            + f"; the filter that takes 7 to 5 at stride 1 is {sizes['filters_giving_5'][0]}; "
            f"the stride that takes 7 to 3 under a 3x3 filter is {sizes['strides_giving_3'][0]}.",
        ),
        html.section(
            "What one filter costs",
            "A 5x5 filter over an image of 32x32x3: its depth is the image's.",
            html.metrics(
                {
                    "outputs": "x".join(map(str, filter_cost["outputs"])),
                    "parameters, without bias": filter_cost["parameters"],
                    "multiplications": filter_cost["multiplications"],
                    "parameters, if dense": filter_cost["dense_parameters"],
                }
            ),
            f"75 = 5 x 5 x 3 and {filter_cost['multiplications']:,} = 28 x 28 x 5 x 5 x 3.",
        ),
        html.section(
            "Edge detection",
            "The filter [1 -1] subtracts from each pixel its right neighbour. Grey is no "
            "difference, light is positive, dark is negative.",
            html.figures(
                picture("photograph", figures.photograph(grey), "The photograph in grey"),
                picture("difference", figures.signed(edges["difference"]), "[1 -1]"),
            ),
            attribution,
            f"On 320x280 pixels the filter costs {photo_cost['multiplications']:,} multiplications "
            f"and {photo_cost['parameters']} weights; the same map as a matrix has "
            f"{photo_cost['dense_parameters']:,} entries.",
            "Two 3x3 filters, on arrays with one edge each:",
            picture(
                "filter_1",
                figures.equation(
                    [
                        (grids["columns"], "input"),
                        (grids["vertical"], "filter 1"),
                        (grids["columns_by_vertical"], "output"),
                    ],
                    ["⊗", "="],
                ),
                "Filter 1 finds vertical edges",
            ),
            picture(
                "filter_2",
                figures.equation(
                    [
                        (grids["rows"], "input"),
                        (grids["horizontal"], "filter 2"),
                        (grids["rows_by_horizontal"], "output"),
                    ],
                    ["⊗", "="],
                ),
                "Filter 2 finds horizontal edges",
            ),
            html.figures(
                *(
                    picture(
                        name.replace(" ", "_"), figures.signed(edges[name]), f"Filter {i}: {name}"
                    )
                    for i, name in enumerate(examples.GRID_FILTERS, 1)
                )
            ),
        ),
        html.section(
            "Sparse interactions",
            "A dense layer from m inputs to n outputs has m n weights; if each output sees k "
            "inputs there are k n of them, and k if all outputs share theirs.",
            picture("sparse", figures.sparse_and_dense(), "Connections of the third unit"),
            html.table(
                [
                    "k",
                    "weights, dense: m n",
                    "weights, unshared: k n",
                    "connections",
                    "weights, shared: k",
                ],
                [
                    (
                        k,
                        c["dense_parameters"],
                        c["local_parameters"],
                        c["connections"],
                        c["parameters"],
                    )
                    for k, c in costs["line"].items()
                ],
                "Lines of m = n = 5 units; connections to padded zeros are not counted",
            ),
        ),
        html.section(
            "Receptive fields",
            "Units deeper in the network see more of the input, although each connects to three "
            "units only: two pixels more a layer at stride 1, twice as many after each stride "
            "of 2.",
            picture(
                "receptive_fields",
                figures.receptive_fields(results["receptive_fields"]),
                "What one unit of the third layer sees, and the growth with depth",
            ),
            html.table(
                ["layers", *results["receptive_fields"]],
                [
                    (depth, *sizes)
                    for depth, sizes in enumerate(
                        zip(*results["receptive_fields"].values(), strict=True), 1
                    )
                ],
                "Pixels seen along one axis after that many 3-tap layers",
            ),
        ),
        html.section(
            "Parameter sharing",
            "The same connections with more and less sharing, and all connections that there are.",
            picture(
                "connections",
                figures.connections(connections),
                "Four kinds of layer; one colour is one weight, and each grey line its own",
            ),
            "A tiled convolution takes its kernels in turn. With one tile it is a convolution "
            f"(difference {connections['one_tile_difference_from_convolution']:.2g}); a local "
            "layer whose kernels repeat is a tiled one "
            f"(difference {connections['tiled_difference_from_local']:.2g}).",
        ),
        html.section(
            "Equivariance",
            "f is equivariant to g if f(g(x)) = g(f(x)). Measured on the photograph with a random "
            "5x5 filter, as |f(g(x)) - g(f(x))| / |f(g(x))| away from the border: convolution "
            "commutes with translation and brightness, not with the rest.",
            html.table(
                ["g", "relative difference"],
                [(name, f"{value:.2g}") for name, value in results["equivariance"].items()],
            ),
        ),
        html.section(
            "Max pooling and its gradient",
            "The largest of each 2x2 window, at stride 2. Pooling has no parameters; its gradient "
            "goes to where each maximum was, and unpooling puts the maxima back there.",
            picture(
                "max_pool",
                figures.equation(
                    [
                        (pool["input"], "input"),
                        (pool["output"], "maxima"),
                        (pool["gradient"], "gradient of ones"),
                        (pool["unpooled"], "unpooled"),
                    ],
                    ["→", " ", " "],
                ),
                "The gradient is the indicator of the maxima",
            ),
        ),
        html.section(
            "Kinds of pooling",
            "8x8 windows at stride 4: the maximum, the average, an average that weighs central "
            "pixels more, and the root of the sum of squares.",
            html.figures(
                *(
                    picture(f"pooled_{i}", figures.photograph(pooled), name)
                    for i, (name, pooled) in enumerate(
                        examples.pooled_photograph(photograph).items()
                    )
                )
            ),
        ),
        html.section(
            "Invariance to small translations",
            "The photograph's vertical edges, rectified, before and after it moves sideways: the "
            "wider the maximum, the less a small shift matters.",
            picture("invariance", figures.invariance(invariance), "Change caused by a shift"),
            html.table(
                ["", *(f"unit {i}" for i in range(1, 5))],
                [
                    ("detector stage", *invariance["line"]),
                    ("maxima of three", *invariance["line_pooled"]),
                    ("detector stage, moved by one", *invariance["line_moved"]),
                    ("maxima of three", *invariance["line_moved_pooled"]),
                ],
                f"All {invariance['inputs_changed']} inputs changed, "
                f"{invariance['outputs_changed']} of 4 maxima did",
            ),
        ),
        html.section(
            "Learned invariance",
            "Pooling across channels instead of positions: six detectors of a bar at different "
            "angles, and the maximum of them, as the bar turns.",
            picture("learned_invariance", figures.learned_invariance(turning), "A turning bar"),
            html.metrics(
                {
                    "least answer of one detector": turning["least_of_one"],
                    "least answer of maxout": turning["least_of_maxout"],
                }
            ),
        ),
        html.section(
            "Pooling with downsampling",
            "Windows of three at every second place: half as many units are left for what follows. "
            "The last window has two units only.",
            picture(
                "downsampling",
                figures.equation(
                    [
                        (results["pooling_with_downsampling"]["input"][None], "detector stage"),
                        (results["pooling_with_downsampling"]["output"][None], "maxima"),
                    ],
                    ["→"],
                ),
                "Maxima of three at stride 2",
            ),
        ),
        html.section(
            "Pooling makes features of one length from any image",
            "Feature maps grow with the image. A spatial pyramid (1 + 4 + 16 bins), 2x2 adaptive "
            "bins and the global average do not: a dense layer can follow.",
            html.table(
                ["image", "flattened", "pyramid", "2x2 bins", "global average"],
                [
                    (
                        "x".join(map(str, row["image"])),
                        row["flattened"],
                        row["pyramid"],
                        row["adaptive_2x2"],
                        row["global"],
                    )
                    for row in results["any_input_size"]["rows"]
                ],
                "Features of 16 channels",
            ),
        ),
        html.section(
            "Strided convolution",
            "Stride 2 is convolution, then dropping every second result, without computing it.",
            picture("strided", figures.strided_convolution(), "Two ways to the same three results"),
            html.metrics(
                {
                    "difference on the photograph": f"{strided['difference']:.2g}",
                    "multiplications, stride 1": strided["multiplications_stride_1"],
                    "multiplications, stride 2": strided["multiplications_stride_2"],
                }
            ),
        ),
        html.section(
            "Zero padding",
            f"A filter of {padding['taps']} takes {padding['taps'] - 1} units from each layer, "
            "which limits the depth; zeros at the border keep the size. Full padding makes it "
            f"grow, here from {padding['size']} to {padding['full']}.",
            picture("zero_padding", figures.zero_padding(padding), "Units in each layer"),
        ),
        html.section(
            "Backpropagation, symbol by symbol",
            "A 3x3 input x under a 2x2 filter f gives the 2x2 output o. All that follows is "
            "derived by differentiating the operations themselves; "
            + (
                "the closed forms agree with the chain rule (jax.vjp) in every symbol."
                if back["equal_to_the_chain_rule"]
                else "THE CLOSED FORMS DO NOT AGREE WITH THE CHAIN RULE."
            ),
            html.table(["output", ""], _by_position("o", back["output"])),
            "The gradient of the filter is the input convolved with the output's gradient, "
            "∂L/∂F = x ⊗ ∂L/∂o:",
            html.table(
                ["filter", "sum over k of ∂L/∂oₖ · ∂oₖ/∂f"],
                _by_position("∂L/∂f", back["filter_gradient"]),
            ),
            picture(
                "filter_gradient",
                figures.equation(
                    [
                        (named("x", 3, 3), "input"),
                        (named("∂L/∂o", 2, 2), "the output's gradient"),
                        (named("∂L/∂f", 2, 2), "the filter's gradient"),
                    ],
                    ["⊗", "="],
                    cell=0.68,
                ),
                "The gradient of the filter: no padding",
            ),
            "The gradient of the input is a full convolution of the output's gradient with the "
            "filter flipped both ways, f₂₂ f₂₁ / f₁₂ f₁₁:",
            html.table(
                ["input", "sum over k of ∂L/∂oₖ · ∂oₖ/∂x"],
                _by_position("∂L/∂x", back["input_gradient"]),
            ),
            picture(
                "input_gradient",
                figures.equation(
                    [
                        (named("∂L/∂o", 2, 2), "the output's gradient"),
                        (named("f", 2, 2)[::-1, ::-1], "the filter, flipped"),
                        (named("∂L/∂x", 3, 3), "the input's gradient"),
                    ],
                    ["⊗", "="],
                    cell=0.68,
                ),
                "The gradient of the input: zeros around the output's gradient",
            ),
            "The slide prints two factors of ∂L/∂x₂₂ differently: ∂L/∂o₁₂ f₂₂ + ∂L/∂x₁₂ f₂₁, where "
            "the derivation gives ∂L/∂o₁₁ f₂₂ + ∂L/∂o₁₂ f₂₁.",
        ),
        html.section(
            "Closed-form gradients in general",
            "The same two formulas for any stride, padding, dilation and number of groups, against "
            "jax.grad in float64: the largest difference.",
            html.table(
                ["stride", "padding", "dilation", "groups", "filter", "input"],
                [
                    (
                        row["stride"],
                        str(row["padding"]),
                        row["dilation"],
                        row["groups"],
                        f"{row['filter']:.2g}",
                        f"{row['input']:.2g}",
                    )
                    for row in results["closed_form_gradients"]
                ],
            ),
        ),
    ]
