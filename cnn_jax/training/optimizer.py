"""The learning-rate schedule and the update rule, from optax."""

import re

import jax
import optax
from jaxtyping import PyTree

from cnn_jax.errors import UsageError
from cnn_jax.training.config import TrainConfig


def learning_rate_schedule(config: TrainConfig) -> optax.Schedule:
    """Return step -> learning rate of a resolved configuration.

    Linear warm-up, then a half cosine (Loshchilov & Hutter 2017), falling steps, or constant.
    """
    peak = config.learning_rate
    if config.base_batch_size is not None:
        peak *= config.batch_size / config.base_batch_size
    rest = config.steps - config.warmup_steps
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(rest, 1), alpha=config.final_learning_rate)
    elif config.schedule == "step":
        falls = [round(share * config.steps) - config.warmup_steps for share in config.decay_at]
        after = optax.piecewise_constant_schedule(
            peak, {max(fall, 0): config.decay_factor for fall in falls}
        )
    else:
        after = optax.constant_schedule(peak)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(config.warmup_start * peak, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def path_of(key_path: tuple) -> str:
    """Return "stage1_block1/conv1/kernel" for a pytree key path of nested dicts."""
    return "/".join(str(key.key) for key in key_path)


def decayed(params: PyTree) -> PyTree:
    """Return whether each parameter is decayed: kernels are, norms' scales and biases are not."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def frozen(params: PyTree, pattern: str | None) -> PyTree:
    """Return whether each leaf's path matches the pattern from its start.

    Raises:
      UsageError: not a regular expression, or one that matches nothing.
    """
    if pattern is None:
        return jax.tree.map(lambda _: False, params)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--freeze={pattern!r} is not a regular expression: {error}") from error
    return jax.tree_util.tree_map_with_path(
        lambda path, _: expression.match(path_of(path)) is not None, params
    )


def create_optimizer(config: TrainConfig, params: PyTree) -> optax.GradientTransformation:
    """Return the update rule: clip, decay the weights, follow the gradient, leave what is frozen.

    SGD's decay is added to the gradient (so momentum sees it), AdamW's and LAMB's to the update.
    """
    rate = learning_rate_schedule(config)
    mask = None if config.decay_norms_and_biases else decayed
    decay, momentum = config.weight_decay, config.momentum
    everywhere = True if mask is None else mask
    if config.optimizer == "sgd":
        rule = optax.chain(
            optax.add_decayed_weights(decay, mask),
            optax.sgd(rate, momentum or None, config.nesterov),
        )
    elif config.optimizer == "adamw":
        rule = optax.adamw(rate, b1=momentum, weight_decay=decay, mask=mask)
    elif config.optimizer == "lars":
        # You et al. 2017: norms and biases are neither decayed nor rescaled
        rule = optax.lars(
            rate,
            decay,
            weight_decay_mask=everywhere,
            trust_ratio_mask=decayed,
            momentum=momentum,
            nesterov=config.nesterov,
        )
    else:
        rule = optax.lamb(rate, b1=momentum, weight_decay=decay, mask=mask)
    if config.clip_norm is not None:
        rule = optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)
    if config.freeze is None:
        return rule
    stay = frozen(params, config.freeze)
    if not any(jax.tree.leaves(stay)):
        raise UsageError(f"--freeze={config.freeze!r} matches no parameter of {config.model}")
    labels = jax.tree.map(lambda still: "frozen" if still else "trained", stay)
    return optax.partition({"trained": rule, "frozen": optax.set_to_zero()}, labels)
