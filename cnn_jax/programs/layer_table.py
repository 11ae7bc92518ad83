"""What a network costs and sees, layer by layer, from the jaxpr of any JAX function.

    net = layer_table.analyse_model("vgg16")
    for layer in net.layers:
        print(layer.path, layer.operation, layer.output, layer.macs, layer.receptive_field)

The function is traced for its shapes; nothing is run and no array made. A layer is a run of
equations under one path of the name stack, which flax.core and Linen both set; without names, a
convolution, matrix product or pooling with what follows it.

What a layer's units see is told by cnn_jax.programs.receptive_field.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.core
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.nn.initializers import zeros

from cnn_jax.models.registry import create_model, find
from cnn_jax.ops.portable import portable
from cnn_jax.programs import jaxpr_equations, receptive_field
from cnn_jax.programs.flops import multiply_adds
from cnn_jax.programs.receptive_field import Value

WEIGHTED = ("conv", "dense")


class Layer(NamedTuple):
    """One row of the table; counts are those of the whole batch, so of one image if n is 1."""

    path: str  # of the scope
    operation: str  # "conv 3x3/2", "max pool 2x2/2", "batch norm", "add", ...
    kind: str  # "input", "conv", "dense", "pool", "other"
    output: tuple[int, ...]  # shape without the batch
    activations: int  # numbers in the output
    bytes: int  # of the output
    parameters: int  # trained ones that no layer before has used
    weights: int  # those of them that are multiplied with inputs: without biases
    macs: int  # multiply-accumulates
    receptive_field: tuple[int, ...]  # pixels along each axis, those of the padding included
    depth: int  # convolutions and dense layers on the longest way here
    inputs: tuple[int, ...]  # the rows it reads
    located: bool  # its units lie on a grid over the image


class Analysis(NamedTuple):
    """A network's rows and totals."""

    layers: tuple[Layer, ...]  # in order of execution; the first is the input
    parameters: int  # trained
    parameter_bytes: int
    statistics: int  # numbers kept but not trained, such as running means
    macs: int

    @property
    def activations(self) -> int:
        """Numbers in the input and in the outputs of convolutions, dense layers and poolings."""
        return sum(row.activations for row in self.layers if row.kind != "other")

    @property
    def activations_of_weighted(self) -> int:
        """Numbers in the outputs of convolutions and dense layers alone."""
        return sum(row.activations for row in self.layers if row.kind in WEIGHTED)

    @property
    def activations_of_all(self) -> int:
        """The same with every ReLU, normalisation, sum, ... counted too."""
        return sum(row.activations for row in self.layers)

    @property
    def depth(self) -> int:
        """Convolutions and dense layers on the longest path."""
        return max(row.depth for row in self.layers)

    @property
    def weighted_layers(self) -> int:
        """Convolutions and dense layers in all."""
        return sum(row.kind in WEIGHTED for row in self.layers)

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """Of the last layer whose units still have a place; may exceed the image."""
        located = [row for row in self.layers if row.located] or self.layers
        return located[-1].receptive_field


def analyse_model(name: str, image_size: int | None = None, **options: Any) -> Analysis:
    """Analyse a registered model on one image, of its native size if none is given.

    Args:
      options: of create_model.

    Raises:
      UsageError: unknown names of models and options.
    """
    model = create_model(name, **options)
    size = image_size or model.image_size
    images = jax.ShapeDtypeStruct((1, size, size, model.channels), np.float32)
    function = partial(find(name).function, num_classes=model.num_classes, **options)
    # one trace tells the variables and what is done with them; random initialisers would take
    # most of its time
    init = flax.core.init(function, flags={"initializer": zeros})
    key = jax.eval_shape(lambda: jax.random.key(0))
    with portable():  # a platform's own forms are no layers, and take a third of the time
        closed, (_, variables) = jax.make_jaxpr(init, return_shape=True)(key, images)
    jaxpr, count = closed.jaxpr, len(jax.tree.leaves(variables))
    made, image = jaxpr.outvars[-count:], jaxpr.invars[-1]
    used = [each for each in jaxpr.eqns if not set(made).intersection(each.outvars)]
    outputs = jaxpr.outvars[:-count]
    return _analyse(Jaxpr((), [*made, image], outputs, used), variables, images)


def analyse(function: Callable[[Any, Any], Any], variables: Any, images: Any) -> Analysis:
    """Analyse function(variables, images).

    Args:
      variables: the tree of parameters, arrays or jax.ShapeDtypeStructs; where it is a mapping with
        "params", only what lies there counts as trained.
      images: [n, *spatial, c], an array or a jax.ShapeDtypeStruct.
    """
    return _analyse(jax.make_jaxpr(function)(variables, images), variables, images)


def largest_receptive_field(analysis: Analysis, paths: Collection[str]) -> int:
    """Return the largest side, in pixels, of the receptive fields within the scopes of these paths.

    It is 1 where none of their layers is in the table.
    """
    fields = [
        side
        for layer in analysis.layers
        for path in paths
        if layer.path == path or layer.path.startswith(path + "/")
        for side in layer.receptive_field
    ]
    return max(fields, default=1)


def _analyse(jaxpr: Jaxpr | ClosedJaxpr, variables: Any, images: Any) -> Analysis:
    """Analyse a program whose arguments are the variables and the images."""
    leaves = {
        "/".join(_key(key) for key in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]
    }
    mapped = isinstance(variables, Mapping) and "params" in variables
    trained = {
        path: leaf for path, leaf in leaves.items() if not mapped or path.startswith("params/")
    }
    trace = _Trace({path: math.prod(leaf.shape) for path, leaf in trained.items()})
    image = receptive_field.of_images(images.shape)
    arguments = [
        receptive_field.of_nothing(len(leaf.shape), image)._replace(leaves=frozenset([path]))
        for path, leaf in leaves.items()
    ]
    trace.start("input", "input", "input", images, image)
    receptive_field.follow(jaxpr, [*arguments, image], trace.read)
    size_of = {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    return Analysis(
        layers=tuple(trace.layers()),
        parameters=sum(size_of[path] for path in trained),
        parameter_bytes=sum(size_of[p] * np.dtype(trained[p].dtype).itemsize for p in trained),
        statistics=sum(size_of.values()) - sum(size_of[path] for path in trained),
        macs=sum(row.macs for row in trace.rows),
    )


def _key(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))


# --- rows ----------------------------------------------------------------------------------------

_ACTIVATIONS = {
    *("relu", "relu6", "silu", "gelu", "hard_silu", "hard_sigmoid", "hard_tanh", "elu", "selu"),
    *("leaky_relu", "softplus", "softmax", "log_softmax", "celu", "glu", "mish"),
}
_MERGES = {"add": "add", "mul": "multiply", "sub": "subtract", "concatenate": "concatenate"}
# moving and renaming numbers is no layer
_LAYOUT = {
    *("squeeze", "broadcast_in_dim", "reshape", "transpose", "slice", "split", "pad", "rev"),
    *("copy", "copy_p", "convert_element_type", "stop_gradient", "optimization_barrier"),
}


class _Row:
    """A layer while its equations are read."""

    def __init__(self, path: str, kind: str = "other", operation: str = ""):
        self.path, self.kind, self.operation = path, kind, operation
        self.primitives: list[str] = []
        self.functions: list[str] = []  # jitted ones, such as relu
        self.leaves: set[str] = set()
        self.inputs: dict[int, None] = {}
        self.merge = ""
        self.macs = self.parameters = self.weights = 0
        self.value: Value | None = None
        self.aval: Any = None


class _Trace:
    """Reads equations, one after the other, into rows."""

    def __init__(self, sizes: Mapping[str, int]):
        self.sizes = sizes  # of the trained leaves
        self.used: set[str] = set()
        self.rows: list[_Row] = []

    def start(self, path, kind="other", operation="", aval=None, value=None) -> _Row:
        row = _Row(path, kind, operation)
        row.aval, row.value = aval, value
        self.rows.append(row)
        return row

    def read(self, equation, values, path, function) -> list[Value]:
        """Follow one equation, and put it into a row if it computes with the image."""
        seen = [value for value in values if value.row is not None]
        outputs = receptive_field.apply_rule(equation, values)
        if not seen:
            leaves = frozenset().union(*(value.leaves for value in values))
            return [output._replace(row=None, leaves=leaves) for output in outputs]
        sources = dict.fromkeys(value.row for value in seen)
        if _is_layout(equation, values):
            return [output._replace(row=seen[0].row, leaves=frozenset()) for output in outputs]
        name = equation.primitive.name
        kind, operation = _describe(equation, values)
        current = len(self.rows) - 1
        apart = current not in sources
        if (
            path != self.rows[-1].path
            or (kind != "other" and self.rows[-1].kind != "other")
            or (apart and (len(sources) > 1 or not path))
            or self.rows[-1].kind == "input"
        ):
            self.start(path)
            current += 1
        row = self.rows[-1]
        if kind != "other" or (operation and not row.operation):
            row.kind, row.operation = kind, operation
        if len(sources) > 1 and current not in sources and not row.merge:
            row.merge = _MERGES.get(name, "")
        row.primitives.append(name)
        row.functions.append(function)
        row.inputs.update((source, None) for source in sources if source != current)
        if not _interpolates(equation, values):
            row.macs += int(multiply_adds(jaxpr_equations.alone(equation)))
        for value in values:
            if value.row is None:
                row.leaves |= value.leaves
                new = [leaf for leaf in value.leaves if leaf in self.sizes] if value.leaves else []
                for leaf in new:
                    if leaf not in self.used:
                        self.used.add(leaf)
                        row.parameters += self.sizes[leaf]
                        row.weights += self.sizes[leaf] if kind in WEIGHTED else 0
        deeper = kind in WEIGHTED and any(value.leaves for value in values if value.row is None)
        outputs = [
            output._replace(
                row=current,
                leaves=frozenset(),
                depth=max(value.depth for value in seen) + deeper,
            )
            for output in outputs
        ]
        row.value, row.aval = outputs[0], equation.outvars[0].aval
        return outputs

    def layers(self) -> Iterable[Layer]:
        for row in self.rows:
            count = math.prod(row.aval.shape)
            normalizes = "rsqrt" in row.primitives  # by the moments of its own input
            yield Layer(
                path=row.path,
                operation=_operation(row),
                kind="other" if normalizes and row.kind == "pool" else row.kind,
                output=tuple(row.aval.shape[1:]),
                activations=count,
                bytes=count * np.dtype(row.aval.dtype).itemsize,
                parameters=row.parameters,
                weights=row.weights,
                macs=row.macs,
                receptive_field=receptive_field.extent(row.value),
                depth=row.value.depth,
                inputs=tuple(row.inputs),
                located=any(a is not None and len(a.first) > 1 for a in row.value.axes),
            )


def _interpolates(equation: JaxprEqn, values: Sequence[Value]) -> bool:
    """Whether a matrix that is neither trained nor computed from the image is multiplied with it.

    So images are resized here; published numbers leave that out.
    """
    constant = any(value.row is None and not value.leaves for value in values)
    return constant and equation.primitive.name == "dot_general"


def _is_layout(equation: JaxprEqn, values: Sequence[Value]) -> bool:
    name, shape = equation.primitive.name, equation.invars[0].aval.shape
    if name in _LAYOUT:
        return True
    if name.startswith("reduce_") and "axes" in equation.params:
        return all(shape[axis] == 1 for axis in equation.params["axes"])
    if name == "concatenate":  # of the parts of one map, or of different features?
        return values[0].axes[equation.params["dimension"]] is not None or (
            len({value.row for value in values}) == 1
        )
    if name in ("mul", "div"):
        last = equation.invars[1]
        return isinstance(last, Literal) and np.ndim(last.val) == 0 and last.val == 1
    return False


def _numbers(values: Sequence[int], separator: str = "x") -> str:
    return separator.join(map(str, values))


def _window(sizes: Sequence[int], strides: Sequence[int]) -> str:
    stride = strides[0] if len(set(strides)) == 1 else _numbers(strides)
    return _numbers(sizes) + ("" if stride == 1 else f"/{stride}")


def _describe(equation: JaxprEqn, values: Sequence[Value]) -> tuple[str, str]:
    """Return the kind of layer that this equation makes of its row, and its operation."""
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        if values[0].row is not None and values[1].row is not None:
            return "other", "convolve by features"
        numbers, shape = params["dimension_numbers"], equation.invars[1].aval.shape
        window = _window([shape[i] for i in numbers.rhs_spec[2:]], params["window_strides"])
        transposed = "transposed " if any(d > 1 for d in params["lhs_dilation"]) else ""
        text = f"{transposed}conv {window}"
        groups = params["feature_group_count"]
        if groups > 1:
            depthwise = shape[numbers.rhs_spec[1]] == 1
            text = f"depthwise {text}" if depthwise else f"{text}, {groups} groups"
        if any(d > 1 for d in params["rhs_dilation"]):
            text += f", dilation {_numbers(sorted(set(params['rhs_dilation'])))}"
        return "conv", text
    if name == "dot_general":
        if any(value.row is None and value.leaves for value in values):
            return "dense", "dense"
        return "other", "matrix product"
    if receptive_field.name_of(equation) == "max_unpool":
        return "other", "max unpool"
    if name.startswith("reduce_window"):
        way = {"reduce_window_max": "max", "reduce_window_sum": "avg"}.get(name, name[14:])
        axes = [i for i, axis in enumerate(values[0].axes) if axis is not None]
        sizes, strides = params["window_dimensions"], params["window_strides"]
        return "pool", f"{way} pool {_window([sizes[i] for i in axes], [strides[i] for i in axes])}"
    if name in ("reduce_sum", "reduce_max") and 0 not in params["axes"]:
        axes = [i for i, axis in enumerate(values[0].axes) if axis is not None]
        if set(axes) & set(params["axes"]):
            whole = "global " if set(axes) <= set(params["axes"]) else ""
            return "pool", f"{whole}{'max' if name == 'reduce_max' else 'avg'} pool"
    return "other", ""


def _operation(row: _Row) -> str:
    """Name what the row does, in the field's words where the equations tell."""
    if row.kind in (*WEIGHTED, "input"):
        return row.operation
    if any(leaf.startswith("batch_stats/") for leaf in row.leaves):
        return "batch norm"
    if "rsqrt" in row.primitives:
        return "layer norm"
    if row.operation:
        return row.operation
    for function in row.functions:
        if function in _ACTIVATIONS:
            return "relu6" if function == "relu" and "min" in row.primitives else function
    if row.merge:
        return row.merge
    if "logistic" in row.primitives:
        return "silu" if "mul" in row.primitives else "sigmoid"
    if set(row.primitives) == {"max"}:
        return "relu"
    if len(set(row.primitives)) == 1:
        return _MERGES.get(row.primitives[0], row.primitives[0])
    return re.sub(r"\d+$", "", row.path.rpartition("/")[2]) or row.primitives[0]
