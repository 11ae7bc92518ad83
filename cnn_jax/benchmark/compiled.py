"""What the compiler of a TPU or GPU counts in a training step, ours beside Flax Linen's.

Nothing is run and no device is needed: bytes, arithmetic, peak memory and collectives are the
compiled program's, so that a second measurement would find the same.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnn_jax.benchmark import flax_models, inputs, machine
from cnn_jax.benchmark.jax_side import training_config
from cnn_jax.benchmark.spec import Spec
from cnn_jax.errors import UsageError, unknown
from cnn_jax.programs import plan
from cnn_jax.runtime import parallel, xla
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.objective import normalize_images
from cnn_jax.training.plan import PlannedStep, plan_step

_ACCOUNTED = ("bytes_accessed", "main_memory_bytes", "flops", "peak_bytes")
COUNTED = (*_ACCOUNTED, "collectives", "collective_bytes")


def measure(spec: Spec, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Return the account of the training step on each device, and its ratios to the other's.

    Args:
      spec: with a topology.  batch_size is that of all devices together.
      say: takes lines about what is going on.

    Raises:
      UsageError: an unknown topology, one whose devices do not divide the batch, a step that does
        not fit into a device's memory, a network that Flax's side does not have.
    """
    if spec.topology != plan.LOCAL:  # the compiler for TPUs takes no TPU
        jax.config.update("jax_platforms", "cpu")
    devices = plan.topology_devices(spec.topology)
    parallel.check_batch_size(spec.batch_size, len(devices))
    cache = xla.cache_folder()
    config = training_config(spec)
    sides = {}
    for name in filter(None, ("jax", spec.against)):
        planned = plan_step(config) if name == "jax" else flax_step(config)
        lowered = plan.lower_step(planned.step, planned.state, planned.batch, devices)
        say(f"{name}: compiling for {len(devices)} devices")
        found = plan.compile_for_account(lowered, cache and cache / "plans")
        limits = plan.bounds(found, devices[0].device_kind, len(devices))
        total = found["collectives"].values()
        sides[name] = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(planned.state.params)),
            **{name: found[name] for name in _ACCOUNTED},
            "collectives": sum(each["count"] for each in total),
            "collective_bytes": sum(each["bytes"] for each in total),
            "by_kind": found["collectives"],
            "traffic": found["traffic"],
            "bounds": limits,
        }
    results = {
        "spec": {
            name: getattr(spec, name)
            for name in ("task", "model", "model_options", "against", "topology", "batch_size")
            + ("image_size", "dtype")
        },
        "machine": machine.describe() | {"libtpu": plan.version("libtpu")},
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "sides": sides,
    }
    if spec.against:
        results["ratios"] = ratios(sides["jax"], sides[spec.against])
    return results


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float | None]:
    """Return ours over theirs of everything that is counted; None where theirs is nothing."""
    return {name: ours[name] / theirs[name] if theirs[name] else None for name in COUNTED}


def flax_step(config: TrainConfig) -> PlannedStep:
    """Return the step of the same network in Flax Linen, written as Flax's ImageNet example is.

    Raises:
      UsageError: there is no such network, or it is asked for with options.
    """
    if config.model not in flax_models.MODELS:
        raise unknown("model of Flax's side", config.model, flax_models.MODELS)
    if config.model_options:
        raise UsageError("Flax's side has the networks as published; leave --model_options out")
    from flax.training.train_state import TrainState  # imports half a second of checkpointing

    planned = plan_step(config)
    classes = planned.config.num_classes
    model = flax_models.MODELS[config.model](num_classes=classes, dtype=jnp.dtype(config.dtype))
    mean, std = (inputs.MEAN,) * 3, (inputs.STD,) * 3

    class State(TrainState):
        batch_stats: Any

    def create(key: jax.Array) -> State:
        image = jnp.zeros((1, *planned.batch["image"].shape[1:]))
        variables = model.init({"params": key, "dropout": key}, image)
        return State.create(
            apply_fn=model.apply,
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            tx=optax.sgd(config.learning_rate, momentum=config.momentum),
        )

    def step(state: State, batch: Mapping[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(0), state.step)

        def loss_of(params):
            images = normalize_images(batch["image"], mean, std, jnp.dtype(config.dtype))
            logits, changed = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            logits = logits.astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            return losses.mean(), (logits, changed.get("batch_stats", {}))

        (loss, (logits, stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        state = state.apply_gradients(grads=gradients, batch_stats=stats)
        accuracy = jnp.mean(logits.argmax(-1) == batch["label"])
        return state, {"loss": loss, "accuracy": accuracy}

    state = jax.eval_shape(create, jax.random.key(0))
    return PlannedStep(step, state, planned.batch, planned.config)
