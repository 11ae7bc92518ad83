"""One update of a network as a pure function of state and batch."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.lax import stop_gradient
from jaxtyping import Float, PyTree

from cnn_jax.models import Model
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.objective import Batch, Metrics, Part
from cnn_jax.training.optimizer import learning_rate_schedule
from cnn_jax.training.paths import frozen
from cnn_jax.training.state import TrainState
from cnn_jax.training.task import CLASSIFICATION, Task


def _micro_batches(batch: Batch, parts: int, together: int = 1) -> Batch:
    """Split the examples into parts, each spread over the devices as the batch was.

    Args:
      together: so many consecutive examples come into one part.
    """

    def split(x):
        x = x.reshape(-1, parts, together, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(parts, -1, *x.shape[3:])

    return jax.tree.map(split, batch)


def _together(config: TrainConfig, batch: Batch, parts: int) -> int:
    """How many consecutive examples an accumulated part takes: those of one group of norms."""
    examples = len(batch["image"]) // parts
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
    gather: Callable[[PyTree], PyTree] = lambda parameters: parameters,
    platform: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return step(state, batch) -> (state, metrics), to be jitted over a mesh or pmapped.

    Args:
      config: a resolved configuration.
      mean, std: of the data set's channels, in 0..1 units.
      axis_name: the mapped axis when pmapped: gradients and metrics are averaged over it.
      task: what the network is for: its objective is minimised.
      class_weights: what each class weighs in the loss, a weighted mean over the whole batch, all
        devices and accumulated parts together; by default all weigh the same.
      gather: parameters of the state -> what the network computes with, see parallel.Parallel.
      platform: where the step will run; by default that of the present devices.

    The metrics are the objective's, gradient_norm (before clipping, of what is trained) and
    learning_rate, of the whole batch, as float32 scalars. A batch is {"image": uint8 [b, h, w, c]}
    and what the task adds, such as "label": int32 [b].
    """
    count = config.accumulate or 1
    schedule = learning_rate_schedule(config)
    base_key = jax.random.key(config.seed)

    def loss_of(params, batch_stats, batch, key, part):
        # so that no backward pass is made for what is frozen, nor its gradient measured
        stays = frozen(params, config.freeze)
        params = jax.tree.map(lambda x, stay: stop_gradient(x) if stay else x, params, stays)
        variables = {"params": gather(params), "batch_stats": batch_stats}
        part = part._replace(rows=batch.get("row"))
        return task.objective(
            model,
            variables,
            batch,
            key,
            config,
            part,
            mean=mean,
            std=std,
            class_weights=class_weights,
        )

    gradient_of = jax.grad(loss_of, has_aux=True)

    def accumulated(params, batch_stats, batch, key, whole):
        """Average gradients over the parts; batch statistics pass from part to part.

        Those of groups move once, by the mean over the groups of all parts.
        """
        grouped = config.norm_batch is not None
        # a convolution inside a loop is several times slower on the CPU, so there it is unrolled
        unrolled = (platform or jax.default_backend()) == "cpu"

        def add(carry, inputs):
            before, moved, total = carry
            part_batch, index = inputs
            part_key = jax.random.fold_in(key, index)
            weights = params
            if unrolled:  # else nothing keeps the compiler from all parts at once
                inputs = total, part_batch, weights
                total, part_batch, weights = jax.lax.optimization_barrier(inputs)
            gradients, (after, metrics) = gradient_of(weights, before, part_batch, part_key, whole)
            total = jax.tree.map(jnp.add, total, (gradients, metrics))
            if grouped:
                moved = jax.tree.map(jnp.add, moved, after)
            else:
                before = moved = after
            return (before, moved, total), None

        parts = _micro_batches(batch, count, _together(config, batch, count))
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(
            lambda *arrays: gradient_of(*arrays, whole), params, batch_stats, first, key
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[1][1]))
        moved = jax.tree.map(jnp.zeros_like, batch_stats) if grouped else batch_stats
        (_, batch_stats, total), _ = jax.lax.scan(
            add,
            (batch_stats, moved, zeros),
            (parts, jnp.arange(count)),
            unroll=unrolled,
        )
        if grouped:
            batch_stats = jax.tree.map(lambda x: x / count, batch_stats)
        gradients, metrics = jax.tree.map(lambda x: x / count, total)
        return gradients, (batch_stats, metrics)

    def share_of_weight(batch):
        """What one part on one device divides by, so that the mean of all is the batch's."""
        total = task.total_weight(batch, class_weights)
        if total is None:
            return None
        total = total / count  # a float now
        return total if axis_name is None else jax.lax.pmean(total, axis_name)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = batch_key = jax.random.fold_in(base_key, state.step)
        examples = len(batch["image"])
        rows = jnp.arange(examples)
        if axis_name is not None:
            device = jax.lax.axis_index(axis_name)
            key, rows = jax.random.fold_in(key, device), rows + device * examples
            examples *= jax.lax.axis_size(axis_name)
        whole = Part(batch_key, None, examples, axis_name, share_of_weight(batch))
        if axis_name is not None or count > 1:
            batch = {**batch, "row": rows}
        compute = gradient_of if count == 1 else accumulated
        gradients, (batch_stats, metrics) = compute(
            state.params, state.batch_stats, batch, key, whole
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
