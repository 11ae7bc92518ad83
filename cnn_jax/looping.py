"""Blocks that are alike, as one loop over their parameters.

A program holds such a block once, however many there are: what compiles it takes the time of a
shallow network.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax.core import Scope, unfreeze
from flax.errors import InvalidRngError
from jaxtyping import Array, Float, PyTree

from cnn_jax import ops

Layer = Callable[..., Array]


# as groups of fewer would hold one block each
LEAST = 4


def alike(
    scopes: Sequence[Scope], blocks: Sequence[Layer]
) -> Iterator[tuple[Sequence[Scope], Layer]]:
    """Yield scopes that follow each other with their block, each time as many as are alike.

    They are of one function, or of partials of one with the same settings, and hold parameters of
    the same shapes.
    """
    pairs = zip(scopes, blocks, strict=True)
    for _, run in itertools.groupby(pairs, lambda pair: _kind(*pair)):
        own, (block, *_) = zip(*run, strict=True)
        yield own, block


def _kind(scope, block):
    function = (block.func, block.args, block.keywords) if isinstance(block, partial) else block
    shapes = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), scope.variables())
    stays = scope.get_flag("stays", None) or (lambda path: False)
    names, _ = jax.tree_util.tree_flatten_with_path(scope.variables().get("params", {}))
    frozen = ["/".join((*scope.path, *(key.key for key in path))) for path, _ in names]
    return function, shapes, [stays(path) for path in frozen]


def can_loop(scopes: Sequence[Scope], block: Layer, x: Float[Array, "..."]) -> bool:
    """Return whether `loop` can run a block that is alike in these scopes.

    There are LEAST of them, their parameters are drawn, and it keeps x's shape and draws no random
    numbers.
    """
    variables = scopes[0].variables()
    if len(scopes) < LEAST or not variables:
        return False
    try:
        y, _ = jax.eval_shape(partial(_apply, scopes[0], block), x, variables)
    except InvalidRngError:
        return False
    return (y.shape, y.dtype) == (x.shape, x.dtype)


def loop(scopes: Sequence[Scope], block: Layer, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Run a block with each scope's parameters in turn, recomputed by groups in the backward pass.

    As many groups as a group has blocks, and what is left over; kept are the groups' inputs, then
    the inputs of one group's blocks, then what lies inside one. The outputs pass no tap.
    """
    size = math.isqrt(len(scopes))
    whole = len(scopes) // size * size
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(s.variables() for s in scopes))
    apply = jax.checkpoint(partial(_apply, scopes[0], block), prevent_cse=False)
    group = partial(jax.lax.scan, apply)
    groups = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), stacked)
    x, moved = jax.lax.scan(jax.checkpoint(group, prevent_cse=False), x, groups)
    moved = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), moved)
    if whole < len(scopes):
        left = jax.tree.map(lambda leaf: leaf[whole:], stacked)
        x, last = jax.checkpoint(group)(x, left)
        moved = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), moved, last)
    for index, scope in enumerate(scopes):
        for kind, collection in moved.items():
            for name, value in collection.items():
                scope.put_variable(kind, name, jax.tree.map(lambda leaf: leaf[index], value))  # noqa: B023
    return x


def _apply(scope: Scope, block: Layer, x: Array, variables: PyTree) -> tuple[Array, PyTree]:
    """Return a block's output, and the variables that it may change."""
    flags = {**scope.flags, "tap": None}
    inner = Scope(unfreeze(variables), {}, scope.name, scope.mutable, path=scope.path, flags=flags)
    with ops.inside_loop():
        y = block(inner, x)
    return y, inner.mutable_variables()
