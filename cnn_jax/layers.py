"""Layers: functions of a flax.core Scope, which names their parameters, and of arrays.

A layer runs as `scope.child(conv, "conv1")(x, 64)`: its parameters lie under that name, and its
output passes through the caller's tap under the same path. What holds for a whole call is read
from the scope's flags, which `cnn_jax.models.registry.create_model` fills:

  train: batch statistics instead of running ones, dropout on
  tap: f(path, activation) -> activation, see cnn_jax.taps
  relu_rule: how ReLUs pass the gradient back, see cnn_jax.ops.activation
  axis_name: the mapped axis over which batch statistics are averaged
  norm_batch: how many consecutive examples share their batch statistics; None: all
  frozen_norms: batch norms are constants: all of theirs lies in batch_stats and never moves
  stays: f(path) -> whether the parameter there is not trained, see batch_norm
  norm_epsilon: takes the place of the batch norms' own
  remat: recompute the blocks' insides in the backward pass; "wide": all but the outputs of
    convolutions to no more channels than they are given, and the batch's moments; "deep": of
    chains of blocks most of their outputs too, see chain
  initializer: f(key, shape, dtype), takes the place of every parameter's own
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import Scope, freeze, lift
from flax.errors import ScopeParamShapeError
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import ones, variance_scaling, zeros
from jaxtyping import Array, Float, PyTree

from cnn_jax import looping, ops
from cnn_jax.errors import UsageError
from cnn_jax.ops.convolution import Padding, per_axis

Layer = Callable[..., Array]
# each channel's mean and variance over the batch, [c], or over each of its groups, [groups, c]
Moments = tuple[Float[Array, "*groups c"], Float[Array, "*groups c"]]

# He et al. 2015, equation 14, by the outputs as in the released ResNet code
he_normal = variance_scaling(2.0, "fan_out", "normal")
# the same by the inputs
he_normal_fan_in = variance_scaling(2.0, "fan_in", "normal")
# LeCun et al. 1998: uniform within 1 / sqrt(inputs)
lecun_uniform = variance_scaling(1 / 3, "fan_in", "uniform")


def tapped(scope: Scope, x: Array, name: str | None = None) -> Array:
    """Return x as the caller's tap leaves it, under the scope's path (and a name below it)."""
    tap = scope.get_flag("tap", None)
    if tap is None:
        return x
    return tap("/".join(scope.path if name is None else (*scope.path, name)), x)


def layer(function: Layer) -> Layer:
    """Make a layer of f(scope, x, ...): what it returns passes through the caller's tap."""

    @functools.wraps(function)
    def wrapper(scope: Scope, *args: Any, **kwargs: Any) -> Array:
        return tapped(scope, function(scope, *args, **kwargs))

    return wrapper


def parameter(scope: Scope, name: str, init: Callable, shape: tuple[int, ...]) -> Array:
    """Return this scope's parameter of that name, float32 whatever the computation's dtype."""
    if not scope.has_variable("params", name):
        return scope.param(name, scope.get_flag("initializer", init), shape, jnp.float32)
    scope.reserve(name, "params")  # and not scope.param, which traces the initializer again
    value = scope.get_variable("params", name)
    if jnp.shape(value) != shape:
        raise ScopeParamShapeError(name, scope.path_text, jnp.shape(value), shape)
    return value


def rematerialized(scope: Scope, block: Layer) -> Layer:
    """Return the block, recomputed in the backward pass if this call asks for it.

    What is recomputed does not pass the tap. The block's settings must be bound already
    (`partial(block, features=64)`): everything that is passed at the call is traced.
    """
    remat = scope.get_flag("remat", False)
    if not remat:
        return block
    policy = _KEPT if remat == "wide" else None
    again = lift.remat(with_flags(block, tap=None), policy=policy)
    return lambda scope, *args: _apart(again(scope, *args))


def _apart(x: PyTree) -> PyTree:
    """Return x, not to be fused with what is made of it where that would compute it once more.

    Else the CPU's compiler adds up all residual blocks so far in each block, and keeps their parts.
    """
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)


def chain(scope: Scope, x: Float[Array, "..."], blocks: Mapping[str, Layer]) -> Float[Array, "..."]:
    """Run blocks one behind the other, each under its name and rematerialized.

    With the call's remat "deep" n of them fall into groups of about the square root of n. The
    forward pass keeps the groups' inputs; the backward pass computes a group's blocks' inputs
    again, and then block by block what lies inside: about twice the square root of n arrays at a
    time, for one forward pass more. Chen et al. 2016, "Training deep nets with sublinear memory
    cost", section 4.3. Blocks that are alike are one loop then, and compile once.
    """
    if scope.get_flag("remat", False) != "deep" or len(blocks) < 3:
        for name in blocks:
            x = scope.child(rematerialized(scope, blocks[name]), name)(x)
        return x
    apart = []  # blocks with their scopes that no loop runs
    for scopes, block in looping.alike([scope.push(name) for name in blocks], [*blocks.values()]):
        same = [(inner, block) for inner in scopes]
        if len(same) < looping.LEAST:
            apart += same
            continue
        x, apart = _grouped(apart, x), []
        if looping.can_loop(scopes, block, x):
            with jax.named_scope(f"{scopes[0].name}_to_{scopes[-1].name}"):
                x = looping.loop(scopes, block, x)
        else:
            apart = same
    return _grouped(apart, x)


def _grouped(blocks, x):
    """Run blocks with their scopes, which may differ, recomputed by groups."""

    def run(bodies: Sequence[Layer], scopes: Sequence[Scope], x: Array) -> Array:
        for body, inner in zip(bodies, scopes, strict=True):
            with jax.named_scope(inner.name):
                x = rematerialized(inner, body)(inner, x)
        return x

    size = max(1, round(math.sqrt(len(blocks))))
    for start in range(0, len(blocks), size):
        scopes, bodies = zip(*blocks[start : start + size], strict=True)
        # of the blocks' own scopes, for to lift this one takes all variables into each group
        again = lift.remat(partial(run, bodies)) if size > 1 else partial(run, bodies)
        x = again(scopes, x)
    return x


_KEPT = jax.checkpoint_policies.save_only_these_names("narrow", "moments")


def _kept(scope: Scope, name: str, x: PyTree) -> PyTree:
    """Return x, kept for the backward pass by rematerialisation of what is wide."""
    if scope.get_flag("remat", False) != "wide":
        return x  # for a name would be one more operation to readers of the program
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, name), x)


def with_flags(block: Layer, **flags: Any) -> Layer:
    """Return the block, run under these flags besides the call's."""

    @functools.wraps(block)
    def wrapper(scope: Scope, *args: Any, **kwargs: Any) -> Any:
        scope = scope.rewound()
        scope.flags = freeze({**scope.flags, **flags})
        return block(scope, *args, **kwargs)

    return wrapper


def _convolve(
    scope,
    x,
    features,
    size=3,
    stride=1,
    padding="same",
    dilation=1,
    groups=1,
    init=he_normal,
    signs=None,
):
    """Convolve with this scope's kernel, whose features are given signs."""
    shape = (*per_axis(size, x.ndim - 2), x.shape[-1] // groups, features)
    kernel = parameter(scope, "kernel", init, shape).astype(x.dtype)
    kernel = kernel if signs is None else kernel * signs.astype(x.dtype)
    inputs = x.shape[-1]
    x = ops.conv(x, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return _kept(scope, "narrow", x) if features <= inputs else x


def _add_bias(scope, x, init):
    return x + parameter(scope, "bias", init, x.shape[-1:]).astype(x.dtype)


@layer
def conv(
    scope: Scope,
    x: Float[Array, "n *spatial c"],
    features: int,
    *,
    size: int | tuple[int, ...] = 3,
    stride: int = 1,
    padding: Padding = "same",
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
    init: Callable = he_normal,
    bias_init: Callable = zeros,
) -> Float[Array, "n *outputs features"]:
    """Convolve, see ops.conv. Parameters: kernel [*size, c / groups, features], bias."""
    x = _convolve(scope, x, features, size, stride, padding, dilation, groups, init)
    return _add_bias(scope, x, bias_init) if bias else x


@layer
def conv_transpose(
    scope: Scope,
    x: Float[Array, "n *spatial c"],
    features: int,
    *,
    size: int,
    stride: int,
    padding: Padding = "valid",
    bias: bool = True,
    init: Callable = he_normal,
) -> Float[Array, "n *outputs features"]:
    """Convolve, transposed, see ops.conv_transpose. Parameters: kernel [*size, features, c], bias.

    The kernel is that of the convolution which this is the transpose of: from features to c.
    """
    axes = x.ndim - 2
    shape = (*per_axis(size, axes), features, x.shape[-1])
    kernel = parameter(scope, "kernel", init, shape).astype(x.dtype)
    x = ops.conv_transpose(x, kernel, stride=stride, padding=padding)
    return _add_bias(scope, x, zeros) if bias else x


@layer
def dense(
    scope: Scope,
    x: Float[Array, "*n c"],
    features: int,
    *,
    bias: bool = True,
    init: Callable = lecun_uniform,
    bias_init: Callable = zeros,
) -> Float[Array, "*n features"]:
    """Multiply by a matrix. Parameters: kernel [c, features], bias [features]."""
    x = x @ parameter(scope, "kernel", init, (x.shape[-1], features)).astype(x.dtype)
    return _add_bias(scope, x, bias_init) if bias else x


def scaled_dense(
    scope: Scope,
    name: str,
    x: Float[Array, "*n c"],
    features: int,
    scale: Float[Array, " features"],
    *,
    init: Callable = lecun_uniform,
) -> Float[Array, "*n features"]:
    """Return dense, under its name, times the scale.

    In bfloat16 in training, where nobody taps, the kernel and the bias are multiplied instead, so
    that dense's output need not be kept for the gradient of the scale.
    """
    if x.dtype == jnp.bfloat16 and _unseen(scope, x):
        return scope.child(_dense_of_scaled, name)(x, scale, init)
    return scope.child(dense, name)(x, features, init=init) * scale.astype(x.dtype)


def _dense_of_scaled(scope, x, scale, init):
    kernel = parameter(scope, "kernel", init, (x.shape[-1], len(scale))) * scale
    bias = parameter(scope, "bias", zeros, scale.shape) * scale
    return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


@layer
def batch_norm(
    scope: Scope,
    x: Float[Array, "n *spatial c"],
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    scale_init: Callable = ones,
    moments: Moments | None = None,
) -> Float[Array, "n *spatial c"]:
    """Normalise each channel, in training by the batch's moments, else by the running ones.

    A norm whose scale and bias both stay as they are does in training as in evaluation: it takes
    the running moments and leaves them. If one of the two is trained, the norm is.

    With the call's norm_batch the moments are those of each so many consecutive examples, and the
    running averages move by their mean: Hoffer et al. 2017, "Train longer, generalize better",
    algorithm 1 (ghost batches). A batch that is no larger is one group.

    Parameters: scale and bias [c]; batch_stats: mean and var [c]. The running averages move by
    1 - momentum (PyTorch's momentum), and the running variance is the unbiased one, so that the
    published models' statistics are the same after a step. Ioffe & Szegedy 2015. Moments of
    bfloat16 are taken about the running mean.

    Args:
      moments: batch_moments of x where they are known.

    Raises:
      UsageError: in training, a batch of one value a channel, of which nothing would be left, or
        groups that do not divide the examples.
    """
    scale, bias = _scale_and_bias(scope, x.shape[-1], scale_init)
    taken = partial(_moments, scope, x) if moments is None else lambda _: moments
    mean, var = _statistics(scope, x, x.shape[-1], taken, momentum)
    settings = (scale, bias, scope.get_flag("norm_epsilon", epsilon))
    if mean.ndim == 1:
        return ops.normalize(x, mean, var, *settings)
    groups = x.reshape(len(mean), -1, *x.shape[1:])
    normalize = jax.vmap(lambda x, mean, var: ops.normalize(x, mean, var, *settings))
    return normalize(groups, mean, var).reshape(x.shape)


def _stays(scope):
    """Whether this scope's batch norm is a constant map of this call."""
    stays = scope.get_flag("stays", None)
    return scope.get_flag("frozen_norms", False) or (
        stays is not None
        and all(stays("/".join((*scope.path, leaf))) for leaf in ("scale", "bias"))
    )


def _scale_and_bias(scope, channels, init):
    if scope.get_flag("frozen_norms", False):
        stay = partial(scope.variable, "batch_stats", shape=(channels,), dtype=jnp.float32)
        return stay("scale", jnp.ones).value, stay("bias", jnp.zeros).value
    scale = parameter(scope, "scale", init, (channels,))
    return scale, parameter(scope, "bias", zeros, (channels,))


def _statistics(scope, x, channels, taken, momentum):
    """Return the mean and variance that this call normalises by, and move the running ones.

    x: has the positions that are normalised.
    taken: f(the running mean) -> the batch's mean and variance, of each group if it has groups.
    """
    running_mean = scope.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
    running_var = scope.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
    if _stays(scope) or not scope.get_flag("train", False):
        return running_mean.value, running_var.value
    mean, var = taken(running_mean.value)
    count = _count(scope, x)
    if count == 1:
        raise UsageError(
            f"{'/'.join(scope.path)} is a batch norm of one value a channel, an image of one pixel "
            "there, and would make nothing of it; give a larger --batch_size, a smaller "
            "--accumulate, larger images or --freeze it"
        )
    if scope.is_mutable_collection("batch_stats"):
        unbiased = var * (count / (count - 1))
        for running, now in ((running_mean, mean), (running_var, unbiased)):
            now = jax.lax.stop_gradient(now).astype(running.value.dtype)
            now = now if now.ndim == 1 else now.mean(0)
            running.value = momentum * running.value + (1 - momentum) * now
    return mean, var


def batch_moments(scope: Scope, x: Float[Array, "n *spatial c"]) -> Moments | None:
    """Return the moments that any batch norm of x takes in this call; None where it takes none.

    For what several norms see, as in DenseNets: they are taken once, and those of joined channels
    are joined. In bfloat16 they are taken about zero.
    """
    if not scope.get_flag("train", False):
        return None
    return _moments(scope, x, jnp.zeros(x.shape[-1], jnp.float32))


def _moments(scope, x, running_mean):
    """Return the mean and variance of x, of each group if it has groups."""
    # where that lies far from the mean, less cancels in float32 than bfloat16 had rounded off
    shift = running_mean if x.dtype == jnp.bfloat16 else None
    moments = partial(ops.batch_moments, shift=shift, kept=partial(_kept, scope, "moments"))
    groups = _groups(scope, len(x))
    if groups is None:
        return moments(x, scope.get_flag("axis_name", None))
    return jax.vmap(moments)(x.reshape(groups, -1, *x.shape[1:]))


def _count(scope, x):
    """Of how many values of x a channel's moments are."""
    groups, count = _groups(scope, len(x)), x.size // x.shape[-1]
    return count * _devices(scope) if groups is None else count // groups


def _devices(scope):
    """Over how many devices the batch's moments are taken by name."""
    axis_name = scope.get_flag("axis_name", None)
    return jax.lax.axis_size(axis_name) if axis_name else 1


def _groups(scope, examples):
    """Into how many groups of the call's norm_batch the examples fall; None: they are one batch."""
    size, devices = scope.get_flag("norm_batch", None), _devices(scope)
    if size is None or examples * devices <= size:
        return None
    if examples % size:
        share = f" on each of {devices} devices" if devices > 1 else ""
        raise UsageError(
            f"groups of --norm_batch={size} do not divide the {examples} examples{share}; give "
            "another one, or another --batch_size" + (" or --parallel=jit" if share else "")
        )
    return examples // size


@layer
def relu(scope: Scope, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return max(x, 0), passed back by the call's rule."""
    return ops.relu(x, scope.get_flag("relu_rule", "gradient"))


@layer
def sigmoid(scope: Scope, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return 1 / (1 + exp(-x))."""
    return jax.nn.sigmoid(x)


@layer
def gelu(scope: Scope, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x times the standard normal distribution function of x.

    In bfloat16 it is computed again for its gradient, of which then x alone is kept.
    """
    exact = partial(jax.nn.gelu, approximate=False)
    return (jax.checkpoint(exact) if x.dtype == jnp.bfloat16 else exact)(x)


@layer
def max_pool(
    scope: Scope,
    x: Float[Array, "n *spatial c"],
    size: int,
    stride: int | None = None,
    padding: Padding = "valid",
    *,
    ceil_mode: bool = False,
) -> Float[Array, "n *outputs c"]:
    """Return each window's maximum, see ops.max_pool."""
    return ops.max_pool(x, size, stride, padding, ceil_mode=ceil_mode)


@layer
def avg_pool(
    scope: Scope,
    x: Float[Array, "n *spatial c"],
    size: int,
    stride: int | None = None,
    padding: Padding = "valid",
    *,
    count_padding: bool = True,
) -> Float[Array, "n *outputs c"]:
    """Return each window's mean, see ops.avg_pool."""
    return ops.avg_pool(x, size, stride, padding, count_padding=count_padding)


@layer
def global_avg_pool(scope: Scope, x: Float[Array, "n *spatial c"]) -> Float[Array, "n c"]:
    """Return each channel's mean over the positions."""
    return ops.global_avg_pool(x)


@layer
def adaptive_avg_pool(
    scope: Scope, x: Float[Array, "n *spatial c"], counts: int
) -> Float[Array, "n *counts c"]:
    """Return the mean of each of counts bins along each axis, see ops.adaptive_avg_pool."""
    return ops.adaptive_avg_pool(x, counts)


@layer
def local_response_norm(
    scope: Scope, x: Float[Array, "n *spatial c"], size: int = 5, **settings: float
) -> Float[Array, "n *spatial c"]:
    """Divide each channel by its neighbours' activity, see ops.local_response_norm."""
    return ops.local_response_norm(x, size, **settings)


@layer
def flatten(scope: Scope, x: Float[Array, "n *spatial c"]) -> Float[Array, "n entries"]:
    """Return one row an example, channel by channel: the order of published dense weights."""
    return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)


@layer
def dropout(scope: Scope, x: Float[Array, "..."], rate: float) -> Float[Array, "..."]:
    """In training, zero each entry with probability `rate` and scale the rest by 1 / (1 - rate).

    Draws from the "dropout" stream of the call's rngs. Srivastava et al. 2014.
    """
    return _drop(scope, x, rate, x.shape)


@layer
def channel_dropout(
    scope: Scope, x: Float[Array, "n *spatial c"], rate: float
) -> Float[Array, "n *spatial c"]:
    """In training, zero each map with probability `rate` and scale the rest by 1 / (1 - rate).

    Draws from the "dropout" stream of the call's rngs. Tompson et al. 2015, "Efficient object
    localization using convolutional networks", section 3.2.
    """
    return _drop(scope, x, rate, (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]))


@layer
def stochastic_depth(
    scope: Scope, x: Float[Array, "n *spatial c"], rate: float
) -> Float[Array, "n *spatial c"]:
    """In training, zero each example with probability `rate` and scale the rest by 1 / (1 - rate).

    Applied to a residual branch before it is added. Draws from the "dropout" stream of the call's
    rngs. Huang et al. 2016, "Deep networks with stochastic depth"; example by example as in
    Tan & Le 2019.
    """
    return _drop(scope, x, rate, (x.shape[0],) + (1,) * (x.ndim - 1))


def _drop(scope, x, rate, shape):
    """Zero by coins of this shape, which broadcasts to x's."""
    if rate == 0 or not scope.get_flag("train", False):
        return x
    kept = jax.random.bernoulli(scope.make_rng("dropout"), 1 - rate, shape)
    return jnp.where(kept, x / (1 - rate), 0)


@layer
def squeeze_excitation(
    scope: Scope,
    x: Float[Array, "n h w c"],
    squeezed: int,
    *,
    activation: Layer = relu,
    gate: Layer = sigmoid,
    init: Callable = he_normal,
) -> Float[Array, "n h w c"]:
    """Scale each channel by a number in 0..1 that two layers compute from all channels' means.

    Parameters: fc1 (c -> squeezed) and fc2 (squeezed -> c), kept as 1x1 convolutions with biases,
    as the published models do. Hu et al. 2018, "Squeeze-and-excitation networks", equations 2-4.
    """
    s = scope.child(global_avg_pool, "pool")(x)[:, None, None]
    s = scope.child(conv, "fc1")(s, squeezed, size=1, init=init)
    s = scope.child(activation, activation.__name__)(s)
    s = scope.child(conv, "fc2")(s, x.shape[-1], size=1, init=init)
    return x * scope.child(gate, "gate")(s)


def tensorflow_same(x: Float[Array, "n *spatial c"], size: int, stride: int) -> Padding:
    """Return the (before, after) pairs of TensorFlow's "SAME" padding.

    The least with which each axis has ceil(length / stride) outputs, an odd zero after: with
    stride 2 and an even length (0, 1) for a 3x3 kernel, where PyTorch's models pad (1, 1).
    """
    axes = x.ndim - 2
    return jax.lax.padtype_to_pads(x.shape[1:-1], (size,) * axes, (stride,) * axes, "SAME")


def _convolve_and_normalize(
    scope,
    x,
    features,
    *,
    size=3,
    stride=1,
    padding="same",
    dilation=1,
    groups=1,
    init=he_normal,
    **norm,
):
    axes = x.ndim - 2
    pointwise = per_axis(size, axes) == (1,) * axes and padding == "same" and groups == 1
    if pointwise and _widens(scope, x, features):
        x = x[:, *(slice(None, None, step) for step in per_axis(stride, axes))]
        kernel, shift = _product(scope, x, features, init=init, **norm)
        return (ops.pointwise(x, kernel) + shift).astype(x.dtype)
    x = _convolve(scope, x, features, size, stride, padding, dilation, groups, init)
    x = tapped(scope, x, "conv")
    return scope.child(batch_norm, "bn")(x, **norm)


def _unseen(scope, x):
    """Whether in this call's training only what follows the batch norm of all x is of interest."""
    untapped = scope.get_flag("tap", None) is None
    return untapped and scope.get_flag("train", False) and _groups(scope, len(x)) is None


def _widens(scope, x, features):
    """Whether a 1x1 convolution and its norm are one product: of fewer channels moments are cheap.

    Only in bfloat16, as the moments are no more exact than that.
    """
    return features > x.shape[-1] and x.dtype == jnp.bfloat16 and _unseen(scope, x)


def _product(scope, x, features, *, init=he_normal, **norm):
    """Return the kernel and the shift that are this scope's conv_bn of x, 1x1.

    The shift is added in float32, in which its gradient, a sum over all positions, is needed.
    """
    axes = x.ndim - 2
    kernel = parameter(scope, "kernel", init, (*(1,) * axes, x.shape[-1], features))
    return scope.child(_scaled_kernel, "bn")(x, kernel.reshape(kernel.shape[-2:]), **norm)


def _scaled_kernel(scope, x, kernel, *, epsilon=1e-5, momentum=0.9, scale_init=ones):
    """Return a kernel and a shift with which batch_norm of x @ kernel is one product of x."""

    def moments(_):
        axis_name, named = scope.get_flag("axis_name", None), partial(_kept, scope, "moments")
        return ops.pointwise_moments(x, kernel, axis_name, named)

    scale, bias = _scale_and_bias(scope, kernel.shape[-1], scale_init)
    mean, var = _statistics(scope, x, kernel.shape[-1], moments, momentum)
    epsilon = scope.get_flag("norm_epsilon", epsilon)
    slope, shift = ops.slope_and_shift(x.dtype, mean, var, scale, bias, epsilon)
    return kernel * slope, shift


@layer
def conv_bn(
    scope: Scope, x: Float[Array, "n *spatial c"], features: int, **settings: Any
) -> Float[Array, "n *outputs features"]:
    """Convolve without bias, then normalise by the batch. Taps: conv, bn and the whole.

    Settings: those of conv but bias, and those of batch_norm.
    """
    return _convolve_and_normalize(scope, x, features, **settings)


def conv_bn_sum(
    scope: Scope,
    branches: Mapping[str, tuple[Float[Array, "n *spatial _c"], Mapping[str, Any]]],
    features: int,
) -> Float[Array, "n *spatial features"]:
    """Return the sum of conv_bn, 1x1, of several arrays, each under its name.

    Where all widen, in bfloat16 in training, they are one product of the joined channels, so that
    none of the summands is written or read.

    Args:
      branches: name -> the array, and conv_bn's settings for it.
    """
    if not all(_widens(scope, x, features) for x, _ in branches.values()):
        summed = (
            scope.child(conv_bn, name)(x, features, size=1, **settings)
            for name, (x, settings) in branches.items()
        )
        return functools.reduce(jnp.add, summed)
    kernels, shifts = zip(
        *(
            scope.child(_product, name)(x, features, **settings)
            for name, (x, settings) in branches.items()
        ),
        strict=True,
    )
    x = jnp.concatenate([x for x, _ in branches.values()], axis=-1)
    return (ops.pointwise(x, jnp.concatenate(kernels)) + sum(shifts)).astype(x.dtype)


@layer
def conv_bn_relu(
    scope: Scope, x: Float[Array, "n *spatial c"], features: int, **settings: Any
) -> Float[Array, "n *outputs features"]:
    """Convolve, normalise, rectify; settings as conv_bn's. Taps: conv, bn, relu and the whole."""
    return scope.child(relu, "relu")(_convolve_and_normalize(scope, x, features, **settings))


def conv_bn_relu_pool(
    scope: Scope,
    images: Float[Array, "n *spatial c"],
    features: int,
    *,
    pool: Mapping[str, Any],
    **settings: Any,
) -> Float[Array, "n *outputs features"]:
    """Return conv_bn_relu, "stem", and max_pool, "stem_pool", of the images.

    In training, where nobody taps, the convolution's output is pooled before it is normalised and
    rectified, both of which keep the order of values, so that at full size it is only written and
    its moments are taken. Where the norm's scale is negative, kernel and scale change their signs
    for that. Values are the same, and so are gradients but for windows of which two values differ
    by less than normalisation rounds off.

    Args:
      pool: max_pool's settings.
      settings: conv_bn_relu's.
    """
    if _unseen(scope, images) and scope.get_flag("relu_rule", "gradient") == "gradient":
        return scope.child(_pooled_first, "stem")(images, features, pool=pool, **settings)
    x = scope.child(conv_bn_relu, "stem")(images, features, **settings)
    return scope.child(max_pool, "stem_pool")(x, **pool)


def _pooled_first(
    scope, x, features, *, pool, epsilon=1e-5, momentum=0.9, scale_init=ones, **settings
):
    bn = scope.push("bn")
    scale, bias = _scale_and_bias(bn, features, scale_init)
    signs = jnp.where(scale < 0, -1, 1).astype(scale.dtype)
    x = _convolve(scope, x, features, signs=signs, **settings)

    def moments(running_mean):
        mean, var = _moments(bn, x, signs * running_mean)
        return signs * mean, var

    mean, var = _statistics(bn, x, features, moments, momentum)
    epsilon = bn.get_flag("norm_epsilon", epsilon)
    x = ops.normalize(ops.max_pool(x, **pool), signs * mean, var, signs * scale, bias, epsilon)
    return ops.relu(x)


@layer
def conv_bn_activation(
    scope: Scope,
    x: Float[Array, "n *spatial c"],
    features: int,
    activation: Layer,
    **settings: Any,
) -> Float[Array, "n *outputs features"]:
    """Convolve, normalise, activate; settings as conv_bn's.

    Taps: conv, bn, the activation under its function's name, and the whole.
    """
    x = _convolve_and_normalize(scope, x, features, **settings)
    return scope.child(activation, activation.__name__)(x)
