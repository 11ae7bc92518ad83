"""The learning-rate schedule and the update rule, from optax."""

import dataclasses
import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from cnn_jax import errors, plugins
from cnn_jax.errors import UsageError
from cnn_jax.training.config import OPTIMIZERS, TrainConfig, is_outside, literal_options
from cnn_jax.training.muon import muon
from cnn_jax.training.paths import frozen, path_of

_MASKED = type(optax.MaskedNode())


def learning_rate_schedule(config: TrainConfig) -> optax.Schedule:
    """Return step -> learning rate of a resolved configuration.

    Linear warm-up, then a half cosine (Loshchilov & Hutter 2017), a line, steps, or constant. Steps
    within the warm-up fall at its end; of those at one update each falls.
    """
    peak = config.learning_rate
    if config.base_batch_size is not None:
        peak *= config.batch_size / config.base_batch_size
    rest = config.steps - config.warmup_steps
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(rest, 1), alpha=config.final_learning_rate)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, peak * config.final_learning_rate, max(rest, 1))
    elif config.schedule == "step":
        falls = [round(share * config.steps) - config.warmup_steps for share in config.decay_at]
        times = Counter(max(fall, 0) for fall in falls)
        after = optax.piecewise_constant_schedule(
            peak, {step: config.decay_factor**count for step, count in times.items()}
        )
    else:
        after = optax.constant_schedule(peak)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(config.warmup_start * peak, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def decayed(params: PyTree) -> PyTree:
    """Return whether each parameter is decayed: kernels are, norms' scales and biases are not."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _rule(
    config: TrainConfig, options: Mapping[str, Any], begin: int = 0
) -> optax.GradientTransformation:
    """The named rule; the options are keyword arguments of optax's function, or of muon.

    begin: the step of the schedule at which the rule makes its first update.
    """
    rate = _from_step(begin, learning_rate_schedule(config))
    mask = None if config.decay_norms_and_biases else decayed
    decay, momentum = config.weight_decay, config.momentum
    if is_outside(config.optimizer):
        return _rule_from_outside(config, rate, mask, options)
    if config.optimizer == "sgd":
        rule = optax.sgd(rate, momentum or None, config.nesterov, **options)
        return optax.chain(optax.add_decayed_weights(decay, mask), rule)
    if config.optimizer == "adamw":
        return optax.adamw(rate, b1=momentum, weight_decay=decay, mask=mask, **options)
    if config.optimizer == "lars":
        # You et al. 2017: norms and biases are neither decayed nor rescaled
        return optax.lars(
            rate,
            decay,
            weight_decay_mask=True if mask is None else mask,
            trust_ratio_mask=decayed,
            momentum=momentum,
            nesterov=config.nesterov,
            **options,
        )
    if config.optimizer == "muon":
        course = learning_rate_schedule(dataclasses.replace(config, learning_rate=1.0))
        course = _from_step(begin, course)
        return muon(course, config.learning_rate, momentum, decay, mask, **options)
    return optax.lamb(rate, b1=momentum, weight_decay=decay, mask=mask, **options)


def _from_step(begin: int, schedule: optax.Schedule) -> optax.Schedule:
    return (lambda step: schedule(step + begin)) if begin else schedule


def register_optimizer(name: str, rule: Callable[..., optax.GradientTransformation]) -> None:
    """Let --optimizer know a rule of the update by this name.

    Args:
      rule: f(learning_rate, **options) -> optax.GradientTransformation, where learning_rate is a
        function of the step. It is given what else it has parameters for of momentum (or b1),
        nesterov, weight_decay and mask (or weight_decay_mask).

    Raises:
      UsageError: the name is taken.
    """
    plugins.register(OPTIMIZERS, "optimizer", name, rule)


def _find(name: str) -> Callable[..., optax.GradientTransformation]:
    """The rule that was registered, optax's own, or that of a "package.module:function"."""
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if plugins.is_address(name):
        return plugins.find(name, "optimizer")
    package, _, own = name.partition(".")
    rules = {
        each: rule
        for each, rule in vars(optax).items()
        if inspect.isfunction(rule) and "learning_rate" in inspect.signature(rule).parameters
    }
    if package != "optax":
        raise UsageError(
            f"--optimizer={name} is not understood; write optax.NAME or package.module:function"
        )
    if own not in rules:
        raise errors.unknown("optimizer of optax's", own, rules)
    return rules[own]


def _rule_from_outside(
    config: TrainConfig, rate: optax.Schedule, mask: Any, options: Mapping[str, Any]
) -> optax.GradientTransformation:
    """The rule with those of the configuration's options that it has parameters for.

    Weight decay is added to the gradient where it has none of its own.

    Raises:
      UsageError: the configuration has an option that the rule does not take.
    """
    function = _find(config.optimizer)
    known = inspect.signature(function).parameters

    def own(*names: str) -> str | None:
        return next((name for name in names if name in known), None)

    given = {
        own("momentum", "b1"): config.momentum,
        own("nesterov"): config.nesterov,
        own("weight_decay"): config.weight_decay,
        own("mask", "weight_decay_mask"): mask,
    }
    for name, parameter in (("momentum", own("momentum", "b1")), ("nesterov", own("nesterov"))):
        changed = getattr(config, name) != getattr(TrainConfig, name)
        if changed and parameter is None:
            raise UsageError(f"--optimizer={config.optimizer} takes no --{name}; leave it out")
    given.pop(None, None)
    rule = function(rate, **given | options)
    if not isinstance(rule, optax.GradientTransformation):
        raise UsageError(
            f"--optimizer={config.optimizer} gave a {type(rule).__name__}; it must return an "
            "optax.GradientTransformation"
        )
    if "weight_decay" in known:
        return rule
    return optax.chain(optax.add_decayed_weights(config.weight_decay, mask), rule)


def layer_rates(text: str, params: PyTree) -> PyTree:
    """Return what each parameter's learning rate is multiplied by, 1 where the text names none.

    Args:
      text: "EXPRESSION: FACTOR; ...": the first expression that fits a path from its start counts.

    Raises:
      UsageError: the text cannot be read, or an expression fits no parameter.
    """
    rows = []
    for part in filter(str.strip, text.split(";")):
        expression, _, factor = part.rpartition(":")
        try:
            rows.append((expression.strip(), re.compile(expression.strip()), float(factor)))
        except (re.error, ValueError):
            raise UsageError(
                f"--layer_rates={text!r} cannot be read; write 'stem: 0.1; head: 10'"
            ) from None
        if not expression.strip() or not 0 <= rows[-1][2] < math.inf:
            raise UsageError(f"--layer_rates: {part.strip()!r} is no expression with its multiple")
    found = set()

    def factor_of(key_path: tuple, _: Any) -> float:
        path = path_of(key_path)
        for expression, compiled, factor in rows:
            if compiled.match(path):
                found.add(expression)
                return factor
        return 1.0

    factors = jax.tree_util.tree_map_with_path(factor_of, params)
    for expression, _, _ in rows:
        if expression not in found:
            raise UsageError(f"--layer_rates: no parameter is left for {expression!r}")
    return factors


def _scale_by_layer(factors: PyTree) -> optax.GradientTransformation:
    """Multiply each update, decay and momentum included, by its factor."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(
            # what is frozen has no update here
            lambda update, factor: update if isinstance(update, _MASKED) else factor * update,
            updates,
            factors,
            is_leaf=lambda each: isinstance(each, _MASKED),
        )
    )


def _check(rule: optax.GradientTransformation, config: TrainConfig, params: PyTree) -> None:
    """Raise UsageError where a rule needs more than gradients and parameters."""
    try:
        jax.eval_shape(lambda params: rule.update(params, rule.init(params), params), params)
    except TypeError as error:
        raise UsageError(
            f"--optimizer={config.optimizer} does not follow from gradients and parameters alone: "
            f"{error}; take another one"
        ) from error


def create_optimizer(config: TrainConfig, params: PyTree) -> optax.GradientTransformation:
    """Return the update rule: clip, decay the weights, follow the gradient, leave what is frozen.

    SGD's decay is added to the gradient (so momentum sees it), AdamW's and LAMB's to the update.
    What thaws begins without momenta, at that step's learning rate. It is for training.step's
    gradients, which are 0 for what is frozen.
    """
    options = literal_options(config.optimizer_options, "optimizer_options")

    def rule_from(begin: int) -> optax.GradientTransformation:
        try:
            rule = _rule(config, options, begin)
        except TypeError as error:
            if not config.optimizer_options:
                raise UsageError(
                    f"--optimizer={config.optimizer} is no rule of the update: {error}"
                ) from error
            raise UsageError(
                f"--optimizer_options={config.optimizer_options!r} is not for "
                f"--optimizer={config.optimizer}: {error}"
            ) from error
        if is_outside(config.optimizer):
            _check(rule, config, params)
        if config.layer_rates:
            rule = optax.chain(rule, _scale_by_layer(layer_rates(config.layer_rates, params)))
        return rule

    rule = rule_from(0)
    if config.freeze is not None:
        stay = frozen(params, config.freeze)
        if not any(jax.tree.leaves(stay)):
            raise UsageError(f"--freeze={config.freeze!r} matches no parameter of {config.model}")
        late = optax.set_to_zero()
        if (thaw := config.thaw_at) is not None:
            late = optax.conditionally_mask(rule_from(thaw), lambda step: step >= thaw)
        labels = jax.tree.map(lambda still: "frozen" if still else "trained", stay)
        rule = optax.partition({"trained": rule, "frozen": late}, labels)
    if config.clip_norm is not None:
        rule = optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)
    return rule
