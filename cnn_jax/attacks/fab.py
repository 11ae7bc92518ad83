"""FAB: projections onto the linearised class boundary, drawn back towards the image."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop, norms
from cnn_jax.attacks.apgd import likeliest_others
from cnn_jax.attacks.deepfool import slopes
from cnn_jax.attacks.loop import Batching, LogitsOf

_TINY = 1e-8


class _State(NamedTuple):
    x: Array
    image: Array
    classes: Array  # [n, 2]: the label and the class across the boundary
    best: Array
    best_size: Array


def project_onto_plane(
    x: Float[Array, "n d"], slope: Float[Array, "n d"], lead: Float[Array, " n"], norm: str
) -> Float[Array, "n d"]:
    """Return the smallest step d in the norm with slope . d = -lead and x + d in 0..1.

    Where the box does not reach the plane, it is the step that comes nearest (Croce & Hein 2020b,
    equation 4). Every coordinate moves by min(t * speed, room) for one t, which is found among the
    sorted points where coordinates come to the wall.

    Args:
      lead: the value of the plane's function at x.
      norm: "linf", all coordinates move at speed 1, or "l2", at the speed of their slope.
    """
    towards = slope * jnp.where(lead >= 0, -1, 1)[:, None]
    gain = jnp.abs(slope)
    room = jnp.where(towards > 0, 1 - x, x)
    speed = (gain > 0).astype(x.dtype) if norm == "linf" else gain
    wall = jnp.where(gain > 0, room / jnp.where(gain > 0, speed, 1), jnp.inf)
    order = jnp.argsort(wall, axis=1)
    wall, ended, rate = (
        jnp.take_along_axis(values, order, axis=1) for values in (wall, gain * room, gain * speed)
    )
    ended = jnp.cumsum(ended, axis=1) - ended  # gained by those that stand at the wall before it
    rate = jnp.cumsum(rate[:, ::-1], axis=1)[:, ::-1]  # gained a unit of t by all the others
    wanted = jnp.abs(lead)[:, None]
    # the first interval that reaches what is wanted; after the last wall nothing more is gained
    reached = jnp.isfinite(wall) & (ended + rate * jnp.where(jnp.isfinite(wall), wall, 0) >= wanted)
    at = reached.argmax(axis=1)[:, None]
    ended, rate = (jnp.take_along_axis(values, at, axis=1) for values in (ended, rate))
    t = jnp.maximum(wanted - ended, 0) / jnp.maximum(rate, jnp.finfo(x.dtype).tiny)
    t = jnp.where(reached.any(axis=1, keepdims=True), t, jnp.finfo(x.dtype).max)
    return jnp.sign(towards) * jnp.where(gain > 0, jnp.minimum(t * speed, room), 0)


def _step(logits_of, state, taken, *, norm, alpha_max, eta, beta) -> loop.Step:
    n = len(state.x)
    _, lead, gradients = slopes(logits_of, state.x, state.classes)
    lead, gradient = lead[:, 0], gradients[:, 0]
    # one plane, seen from x and from the image
    at_image = lead + norms.flat(gradient * (state.image - state.x)).sum(axis=1)
    step, from_image = jnp.split(
        project_onto_plane(
            norms.flat(jnp.concatenate([state.x, state.image])),
            norms.flat(jnp.concatenate([gradient, gradient])),
            jnp.concatenate([lead, at_image]),
            norm.name,
        ).reshape(2 * n, *state.x.shape[1:]),
        2,
    )
    near, far = (jnp.maximum(norm.size(each), _TINY) for each in (step, from_image))
    alpha = norms.broadcast(jnp.minimum(near / (near + far), alpha_max), step)
    moved = (state.x + eta * step) * (1 - alpha) + (state.image + eta * from_image) * alpha
    moved = jnp.clip(moved, 0, 1)
    fooled = logits_of(moved).argmax(axis=1) != state.classes[:, 0]
    size = norm.size(moved - state.image)
    better = fooled & (size < state.best_size)
    back = state.image + beta * (moved - state.image)
    new = state._replace(
        x=jnp.where(norms.broadcast(fooled, moved), back, moved),
        best=jnp.where(norms.broadcast(better, moved), moved, state.best),
        best_size=jnp.where(better, size, state.best_size),
    )
    return loop.Step(new, jnp.zeros(n, bool), loop.not_finite(gradients))


def fab(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""] | None = None,
    *,
    norm: str = "linf",
    steps: int = 100,
    most_targets: int = 9,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    enough: float = 0.0,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "n h w c"]:
    """Return the nearest adversarial images found; the images where none was.

    The targeted form of Croce & Hein 2020b: the boundary to each of the likeliest wrong classes in
    turn. An image that is misread already returns as it is.

    Args:
      key: not used, nothing is drawn.
      norm: the one made small, "linf" or "l2".
      most_targets: how many classes; fewer where the network has no more.
      alpha_max: the image's share in a step at most.  eta: by how much a step overshoots.
      beta: how far an adversarial x goes from the image in the next step.
      enough: a size; an image fooled within it is not taken to further classes.

    Raises:
      UsageError: pixels not in 0..1, a gradient that is not finite.
    """
    del key
    norm = norms.find(norm, ("linf", "l2"))
    images, labels = checks.labelled(logits_of, images, labels)
    logits = loop.logits(logits_of, images, batching)
    ranked = likeliest_others(logits, labels)
    best = images.copy()
    best_size = np.where(logits.argmax(axis=1) == labels, np.inf, 0).astype(images.dtype)
    for rank in range(min(most_targets, ranked.shape[1])):
        left = np.flatnonzero(best_size > enough)
        state = loop.run(
            _step,
            logits_of,
            _State(
                images[left],
                images[left],
                np.stack([labels[left], ranked[left, rank]], axis=1),
                best[left],
                best_size[left],
            ),
            steps=steps,
            batching=batching,
            norm=norm,
            alpha_max=alpha_max,
            eta=eta,
            beta=beta,
        )
        best[left], best_size[left] = state.best, state.best_size
    return best
