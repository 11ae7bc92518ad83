"""What training minimises: the loss of a part of a batch, with batch statistics and metrics.

An objective is a function

    objective(model, variables, batch, key, config, part, *, mean, std, class_weights)
      -> (loss, (batch statistics, metrics))

of a batch of the task's data, which training.step differentiates by variables["params"]. The key is
for what this part draws for itself. mean and std are those of the images' channels, in 0..1 units,
class_weights float [classes] or None. The mean over a batch's equal parts, on however many devices,
is what is minimised; metrics hold "loss".
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, UInt8

from cnn_jax import taps
from cnn_jax.attacks.training import divergence, perturbed
from cnn_jax.models import Model
from cnn_jax.training.config import TrainConfig, rematerialization
from cnn_jax.training.paths import freezing

Batch = Mapping[str, Array]
Metrics = Mapping[str, Array]
ClassWeights = Array | np.ndarray | None
Auxiliary = Mapping[str, Array]  # the outputs of the auxiliary heads, by path
Objective = Callable[..., tuple[Array, tuple[PyTree, Metrics]]]

# the paths of the heads whose outputs have a share of the loss
AUXILIARY_HEADS = ("aux1", "aux2")


class Part(NamedTuple):
    """Where the examples that an objective is given stand in the whole batch.

    batch_key: the key that all parts share.
    rows, examples: the examples' places among so many in the whole batch; None: they are all of it.
    axis_name: of the devices, each of which has a part; None: there are no such devices.
    weight: what to divide a weighted sum by; None where the task weighs all examples the same.
    """

    batch_key: Array
    rows: Int[Array, " b"] | None = None
    examples: int | None = None
    axis_name: str | None = None
    weight: Float[Array, ""] | None = None


def normalize_images(
    images: UInt8[Array, "*n h w c"],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "*n h w c"]:
    """Return (images / 255 - mean) / std, computed in float32 or better, in the given dtype."""
    precision = jnp.promote_types(dtype, jnp.float32)
    mean, std = jnp.asarray(mean, precision), jnp.asarray(std, precision)
    return ((images.astype(precision) / 255 - mean) / std).astype(dtype)


def of_outputs(
    loss: Callable[..., tuple[Array, Metrics]],
    adversary_loss: Callable[[Any, Batch], Array],
) -> Objective:
    """Return the objective of a network whose outputs are compared with what a batch holds.

    It adds what holds for any such loss: auxiliary heads, and images perturbed by an adversary.

    Args:
      loss: loss(outputs, auxiliary, batch, config, axis_name, class_weights, total) -> (scalar,
        metrics), of the network's outputs and those of its auxiliary heads; total is the part's
        weight.
      adversary_loss: adversary_loss(outputs, batch) -> what an adversary climbs, summed over the
        batch: the log odds against the truth, for the cross-entropy's gradient vanishes where the
        network is sure.
    """

    def objective(
        model: Model,
        variables: PyTree,
        batch: Batch,
        key: Array,
        config: TrainConfig,
        part: Part,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        class_weights: ClassWeights = None,
    ) -> tuple[Array, tuple[PyTree, Metrics]]:
        normalized = partial(normalize_images, mean=mean, std=std, dtype=jnp.dtype(config.dtype))
        trades = config.adversary == "trades"
        auxiliary: dict[str, Array] = {}
        heads = [head for head in AUXILIARY_HEADS if head in variables["params"]]

        def apply(images, **options):
            return model.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
                axis_name=part.axis_name,
                norm_batch=config.norm_batch,
                remat=rematerialization(config),
                stays=freezing(config.freeze),
                **options,
            )

        images = normalized(batch["image"])
        if config.adversary != "none":
            changed = perturbed(
                lambda pixels: apply(normalized(255 * pixels))[0],
                lambda outputs: adversary_loss(outputs, batch),
                batch["image"].astype(jnp.float32) / 255,
                jax.random.fold_in(key, 0),
                adversary=config.adversary,
                eps=config.adversary_eps,
                steps=config.adversary_steps,
            )
            changed = normalized(255 * changed)
            images = jnp.concatenate([images, changed]) if trades else changed
        outputs, updates = apply(images, tap=taps.record(auxiliary, heads) if heads else None)
        others = outputs
        if trades:
            outputs, others = jnp.split(outputs, 2)
            auxiliary = {head: jnp.split(values, 2)[0] for head, values in auxiliary.items()}
        value, metrics = loss(
            outputs, auxiliary, batch, config, part.axis_name, class_weights, part.weight
        )
        if trades:
            value += config.trades_beta * divergence(outputs, others).mean()
            metrics = metrics | {"loss": value}
        return value, (updates.get("batch_stats", {}), metrics)

    return objective
