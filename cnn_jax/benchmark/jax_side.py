"""JAX's side of a measurement: compiling, counting, memory, and the table of its tasks."""

import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.benchmark import inputs, jax_tasks
from cnn_jax.benchmark.program import Program
from cnn_jax.benchmark.spec import Spec
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.models import Model
from cnn_jax.programs import flops
from cnn_jax.runtime import parallel
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig, build_model
from cnn_jax.training.objective import normalize_images
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.training.state import create_state
from cnn_jax.training.step import create_train_step

OutOfMemory = jax.errors.JaxRuntimeError


def prepare(spec: Spec) -> tuple[Program, dict[str, Any]]:
    """Return the compiled program and its facts.

    trace_seconds: to the jaxpr and on to XLA's input; compile_seconds: from there, by XLA, or by
    loading from the persistent cache.
    flops: of a call, on all devices; None where only the data says.
    program_bytes: what a call holds on a device, arguments, results and temporary arrays, as the
    compiler planned it.
    """
    program = TASKS[spec.task].program(spec)
    facts = dict(program.facts)
    if hasattr(program.call, "lower"):
        compiled, measured = _compile(program.call, program.state, next(program.batches))
        program = program._replace(call=compiled)
        facts |= measured
    device = jax.devices()[0]
    facts |= {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "device_count": jax.device_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    return program, facts


def _compile(function: Callable, *arguments: Any) -> tuple[Callable, dict[str, Any]]:
    start = time.perf_counter()
    traced = function.trace(*arguments)
    lowered = traced.lower()
    traced_at = time.perf_counter()
    compiled = lowered.compile()
    compiled_at = time.perf_counter()
    multiply_adds = flops.multiply_adds(traced.jaxpr)
    return compiled, {
        "trace_seconds": traced_at - start,
        "compile_seconds": compiled_at - traced_at,
        "flops": None if math.isnan(multiply_adds) else 2 * multiply_adds,
        "program_bytes": _program_bytes(compiled),
    }


def _program_bytes(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def peak_device_bytes() -> int | None:
    """Return the most memory that was in use on the first device; None where it does not say."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def matrix_product(side: int, dtype: str) -> Callable[[], None]:
    """Return a function that multiplies two square matrices and waits."""
    product = jax.jit(jnp.matmul)
    matrix = jnp.ones((side, side), dtype)
    return lambda: product(matrix, matrix).block_until_ready()


# So small that thousands of steps on one batch stay ordinary numbers.
LEARNING_RATE = 1e-3


def train(spec: Spec) -> Program:
    """One update by SGD with momentum, as `experiments.train` makes it."""
    config, model, over, mean, std = _set_up(spec)
    variables = loop.initial_variables(config, model, model.channels)
    optimizer = create_optimizer(config, variables["params"])
    step = create_train_step(model, optimizer, config, mean, std)
    return Program(
        call=over.compile(step),
        state=over.put_state(create_state(model, optimizer, variables, ema=False)),
        batches=_on_devices(spec, model, over, inputs.TRAINING),
        images=spec.batch_size,
        next_state=lambda state, output: output[0],
        wait=jax.block_until_ready,
        lead=inputs.lead(spec),
        facts={"parameters": _count(variables["params"])},
    )


def inference(spec: Spec) -> Program:
    """The logits of a batch of uint8 images."""
    config, model, over, mean, std = _set_up(spec)
    variables = loop.initial_variables(config, model, model.channels)
    dtype = jnp.dtype(spec.dtype)

    def logits(variables, batch):
        return model.apply(variables, normalize_images(batch["image"], mean, std, dtype))

    return Program(
        call=jax.jit(logits),
        state=over.put_state(variables),
        batches=_on_devices(spec, model, over, inputs.EVALUATION),
        images=spec.batch_size,
        wait=jax.block_until_ready,
        lead=inputs.lead(spec),
        facts={"parameters": _count(variables["params"])},
    )


def input_pipeline(spec: Spec) -> Program:
    """A batch of training images: read, decoded, cropped, resized and mirrored; no device."""
    return Program(
        call=lambda state, batch: batch,
        state=None,
        batches=inputs.decoded_batches(spec, 3, inputs.TRAINING),
        images=spec.batch_size,
        lead=inputs.lead(spec),
        outcome=lambda batch: {"mean_value": float(batch["image"].mean())},
    )


class Task(NamedTuple):
    """A row of the table.

    program(spec) -> what to repeat; where its call is jitted, compile time and FLOPs are measured.
    against: who there is to compare with, each with a row in torch_tasks.TASKS.
    decodes: whether it reads JPEG files, whatever --input says.
    has_workload: whether both sides are given one network and its images, see workload.py.
    has_budget: whether it takes eps.
    is_counted: whether nothing is run and the compiler for a topology counts, see compiled.py.
    is_varied: whether the cost is measured at several devices, batches and more, see curves.py.
    model: that is measured where none is named.
    """

    program: Callable[[Spec], Program]
    against: tuple[str, ...] = ()
    decodes: bool = False
    has_workload: bool = False
    has_budget: bool = False
    is_counted: bool = False
    is_varied: bool = False
    model: str = "resnet50"


_with_workload = partial(Task, has_workload=True)
_bounded = partial(_with_workload, has_budget=True)

TASKS = {
    "train": Task(train, ("torch",)),
    "compile": Task(train, ("flax",), is_counted=True),
    "curves": Task(train, is_varied=True, model="resnet20"),
    "inference": Task(inference, ("torch",)),
    "input": Task(input_pipeline, ("torch",), decodes=True),
    "pgd": _bounded(jax_tasks.pgd, ("torchattacks", "foolbox")),
    "deepfool": _with_workload(jax_tasks.deepfool, ("adv_lib", "foolbox")),
    "autoattack": _bounded(jax_tasks.autoattack, ("autoattack", "torchattacks")),
    "universal": _bounded(jax_tasks.universal, ("art",)),
    "occlusion": _with_workload(jax_tasks.occlusion, ("captum", "torch")),
    "integrated_gradients": _with_workload(jax_tasks.integrated_gradients, ("captum", "torch")),
    "dream": _with_workload(jax_tasks.dream, ("torch",)),
    "ascent": _with_workload(jax_tasks.ascent, ("torch",)),
}


def training_config(spec: Spec) -> TrainConfig:
    """Return the configuration of plain training: SGD with momentum at a constant rate."""
    return TrainConfig(
        model=spec.model,
        model_options=spec.model_options,
        image_size=spec.image_size,
        batch_size=spec.batch_size,
        dtype=spec.dtype,
        optimizer="sgd",
        momentum=0.9,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        steps=1,
    )


def _set_up(spec: Spec) -> tuple[TrainConfig, Model, parallel.Parallel, tuple, tuple]:
    parallel.check_batch_size(spec.batch_size, jax.device_count())
    config = training_config(spec)
    model = build_model(config)
    mean, std = (inputs.MEAN,) * model.channels, (inputs.STD,) * model.channels
    return config, model, parallel.over_mesh(), mean, std


def _on_devices(
    spec: Spec, model: Model, over: parallel.Parallel, augmentation: Augmentation
) -> Iterator[Any]:
    """Yield batches on the devices; the synthetic one is put there once."""
    last, placed = None, None
    for batch in inputs.batches(spec, model.channels, model.num_classes, augmentation):
        if batch is not last:
            last, placed = batch, over.put_batch(batch)
        yield placed


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
