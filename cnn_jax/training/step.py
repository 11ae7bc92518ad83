"""One update of a network as a pure function of state and batch."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, UInt8

from cnn_jax import taps
from cnn_jax.attacks.training import divergence, perturbed
from cnn_jax.errors import UsageError
from cnn_jax.models import Model
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.optimizer import learning_rate_schedule
from cnn_jax.training.paths import freezing
from cnn_jax.training.state import TrainState
from cnn_jax.training.task import CLASSIFICATION, Batch, Metrics, Task

# the paths of the heads whose outputs have a share of the loss
AUXILIARY_HEADS = ("aux1", "aux2")


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


def _micro_batches(batch: Batch, parts: int, together: int = 1) -> Batch:
    """Split the examples into parts, each spread over the devices as the batch was.

    Args:
      together: so many consecutive examples come into one part.
    """

    def split(x):
        x = x.reshape(-1, parts, together, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(parts, -1, *x.shape[3:])

    return jax.tree.map(split, batch)


def _together(config: TrainConfig, batch: Batch) -> int:
    """How many consecutive examples an accumulated part takes: those of one group of norms."""
    examples = len(batch["image"]) // config.accumulate
    size = config.norm_batch or 1
    return size if examples % size == 0 else 1


def create_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    mean: Sequence[float],
    std: Sequence[float],
    axis_name: str | None = None,
    task: Task = CLASSIFICATION,
    class_weights: Float[np.ndarray, " classes"] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return step(state, batch) -> (state, metrics), to be jitted over a mesh or pmapped.

    Args:
      config: a resolved configuration.
      mean, std: of the data set's channels, in 0..1 units.
      axis_name: the mapped axis when pmapped: gradients and metrics are averaged over it.
      task: what the network is for: its loss is taken of the outputs and the batch.
      class_weights: what each class weighs in the loss, a weighted mean over the whole batch, all
        devices and accumulated parts together; by default all weigh the same.

    The metrics are loss (nats), accuracy, gradient_norm (before clipping) and learning_rate, of the
    whole batch, as float32 scalars. A batch is {"image": uint8 [b, h, w, c], "label": int32 [b]},
    and "mixed_label" and "mix" where images are mixed.
    """
    schedule = learning_rate_schedule(config)
    dtype = jnp.dtype(config.dtype)
    base_key = jax.random.key(config.seed)
    normalized = partial(normalize_images, mean=mean, std=std, dtype=dtype)
    stays = freezing(config.freeze)
    trades = config.adversary == "trades"
    if trades and task is not CLASSIFICATION:
        raise UsageError("--adversary=trades compares classifications; take --adversary=pgd")

    def loss_of(params, batch_stats, batch, key, share):
        auxiliary: dict[str, Array] = {}
        heads = [head for head in AUXILIARY_HEADS if head in params]

        def apply(images, **options):
            return model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
                axis_name=axis_name,
                norm_batch=config.norm_batch,
                remat=config.remat,
                stays=stays,
                **options,
            )

        def loss_of_outputs(outputs, auxiliary):
            return task.loss(outputs, auxiliary, batch, config, axis_name, class_weights, share)

        images = normalized(batch["image"])
        if config.adversary != "none":
            changed = perturbed(
                lambda pixels: apply(normalized(255 * pixels))[0],
                lambda outputs: task.adversary_loss(outputs, batch),
                batch["image"].astype(jnp.float32) / 255,
                jax.random.fold_in(key, 0),
                adversary=config.adversary,
                eps=config.adversary_eps,
                steps=config.adversary_steps,
            )
            changed = normalized(255 * changed)
            images = jnp.concatenate([images, changed]) if trades else changed
        outputs, updates = apply(images, tap=taps.record(auxiliary, heads) if heads else None)
        if trades:
            outputs, others = jnp.split(outputs, 2)
            auxiliary = {head: jnp.split(values, 2)[0] for head, values in auxiliary.items()}
        loss, metrics = loss_of_outputs(outputs, auxiliary)
        if trades:
            loss += config.trades_beta * divergence(outputs, others).mean()
            metrics = metrics | {"loss": loss}
        return loss, (updates.get("batch_stats", {}), metrics)

    gradient_of = jax.grad(loss_of, has_aux=True)

    def accumulated(params, batch_stats, batch, key, share):
        """Average gradients over the parts; batch statistics pass from part to part.

        Those of groups move once, by the mean over the groups of all parts.
        """
        grouped = config.norm_batch is not None

        def part(carry, inputs):
            before, moved, total = carry
            part_batch, index = inputs
            part_key = jax.random.fold_in(key, index)
            gradients, (after, metrics) = gradient_of(params, before, part_batch, part_key, share)
            total = jax.tree.map(jnp.add, total, (gradients, metrics))
            if grouped:
                moved = jax.tree.map(jnp.add, moved, after)
            else:
                before = moved = after
            return (before, moved, total), None

        parts = _micro_batches(batch, config.accumulate, _together(config, batch))
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradient_of, params, batch_stats, first, key, share)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[1][1]))
        # a convolution inside a loop is several times slower on the CPU, so there it is unrolled
        moved = jax.tree.map(jnp.zeros_like, batch_stats) if grouped else batch_stats
        (_, batch_stats, total), _ = jax.lax.scan(
            part,
            (batch_stats, moved, zeros),
            (parts, jnp.arange(config.accumulate)),
            unroll=jax.default_backend() == "cpu",
        )
        if grouped:
            batch_stats = jax.tree.map(lambda x: x / config.accumulate, batch_stats)
        gradients, metrics = jax.tree.map(lambda x: x / config.accumulate, total)
        return gradients, (batch_stats, metrics)

    def share_of_weight(batch):
        """What one part on one device divides by, so that the mean of all is the batch's."""
        total = task.total_weight(batch, class_weights)
        if total is None:
            return None
        total = total / config.accumulate  # a float now
        return total if axis_name is None else jax.lax.pmean(total, axis_name)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(base_key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        compute = gradient_of if config.accumulate == 1 else accumulated
        gradients, (batch_stats, metrics) = compute(
            state.params, state.batch_stats, batch, key, share_of_weight(batch)
        )
        if axis_name is not None:
            gradients, metrics = jax.lax.pmean((gradients, metrics), axis_name)
            if config.norm_batch is not None:  # each device has moved by its own groups
                batch_stats = jax.lax.pmean(batch_stats, axis_name)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if config.ema_decay is not None:
            ema = _averaged(state, {"params": params, "batch_stats": batch_stats}, config)
        metrics = metrics | {
            "gradient_norm": optax.global_norm(gradients),
            "learning_rate": schedule(state.step),
        }
        metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
        return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics

    return step


def _averaged(state: TrainState, variables: PyTree, config: TrainConfig) -> PyTree:
    """Move the average towards the variables, every ema_every steps.

    The n-th time its decay is (1 + n) / (10 + n) at most, as in TensorFlow's moving average: it is
    over the last tenth of a short run, and what it started from is soon forgotten, the initial
    weights as well as the average of a run that was begun without this.
    """
    count = (state.step + 1) // config.ema_every
    decay = jnp.minimum(config.ema_decay, (1 + count) / (10 + count))
    decay = jnp.where((state.step + 1) % config.ema_every == 0, decay, 1.0)
    return jax.tree.map(lambda old, new: old * decay + new * (1 - decay), state.ema, variables)
