"""All that training changes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from cnn_jax.models import Model


class TrainState(NamedTuple):
    """What a step takes and returns; a checkpoint holds all of it.

    The step fixes the position in the input and, folded into the seed's key, all randomness.
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    ema: PyTree  # {"params", "batch_stats"} averaged over steps; {} without averaging


def create_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    variables: PyTree,
    ema: bool,
) -> TrainState:
    """Return the state of step 0 for a model's variables."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    # copies: a step that donates the state must not meet one buffer twice
    average = {"params": params, "batch_stats": batch_stats} if ema else {}
    return TrainState(
        jnp.zeros((), jnp.int32),
        params,
        batch_stats,
        optimizer.init(params),
        jax.tree.map(jnp.copy, average),
    )


def evaluated_variables(state: TrainState) -> PyTree:
    """Return the variables to evaluate: the averaged ones where there are any."""
    return state.ema or raw_variables(state)


def raw_variables(state: TrainState) -> PyTree:
    """Return the variables as the last update left them."""
    return {"params": state.params, "batch_stats": state.batch_stats}
