"""A whole measurement: workers started, compiled cold and from the cache, timed in turns."""

import importlib.util
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from cnn_jax import errors
from cnn_jax.benchmark import machine, timing
from cnn_jax.benchmark.jax_tasks import TASKS
from cnn_jax.benchmark.jpegs import write_images
from cnn_jax.benchmark.process import Side, started
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.summary import summarize
from cnn_jax.errors import UsageError
from cnn_jax.models import create_model
from cnn_jax.models.registry import check_task
from cnn_jax.training.config import literal_options

# Of the GPU's memory, for JAX, which takes its share at the start, where PyTorch needs some too.
SHARED_FRACTION = "0.45"

# Turns of each way to run PyTorch, of which the fastest is measured.
PILOT_ROUNDS = 3


def resolve(spec: Spec, against: str | None, rounds: int) -> Spec:
    """Return the Spec with the model's image size, where none is given, and the task's input.

    Raises:
      UsageError: an unknown task, model or option, a number that makes no sense, no PyTorch.
    """
    if spec.task not in TASKS:
        raise errors.unknown("task", spec.task, TASKS)
    if against not in (None, "torch"):
        raise errors.unknown("side for --against", against, ["torch"])
    check_task(spec.model, "classification")
    model = create_model(spec.model, **literal_options(spec.model_options))
    for name, value in (
        ("batch_size", spec.batch_size),
        ("image_size", model.image_size if spec.image_size is None else spec.image_size),
        ("rounds", rounds),
    ):
        if value < 1:
            raise UsageError(f"--{name}={value} is too small; give 1 at least")
    if spec.turn_seconds < 0:
        raise UsageError(f"--turn_seconds={spec.turn_seconds} is negative; give 0 or more")
    if against == "torch" and importlib.util.find_spec("torch") is None:
        raise UsageError(
            "--against=torch needs PyTorch, which is not installed in this environment; "
            f"install it there: {sys.executable} -m pip install torch"
        )
    return spec._replace(
        image_size=spec.image_size or model.image_size,
        input="decoded" if TASKS[spec.task].decodes else spec.input,
    )


def measure(
    spec: Spec,
    *,
    against: str | None = None,
    rounds: int = 10,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Return all that was measured, by name; see the experiment for what is in it.

    Args:
      against: "torch": PyTorch does the same, in turns.
      rounds: turns of each side.
      say: takes lines about what is going on.

    Raises:
      UsageError: what cannot be measured, and why.
    """
    spec = resolve(spec, against, rounds)
    described = machine.describe()
    with tempfile.TemporaryDirectory(prefix="cnn_jax_benchmark_") as folder, ExitStack() as stack:
        if spec.input == "decoded":
            write_images(Path(folder) / "images")
            spec = spec._replace(images=str(Path(folder) / "images"))
        environment = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        if against and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = SHARED_FRACTION
        say("jax: starting")
        sides = {"jax": stack.enter_context(started("jax", spec, environment))}
        cold = sides["jax"].facts
        if "compile_seconds" in cold:
            stack.close()
            say("jax: starting again, to compile from the cache")
            sides["jax"] = stack.enter_context(started("jax", spec, environment))
        pilot = None
        if against:
            sides["torch"], pilot = _fastest_torch(spec, sides["jax"].facts, stack, say)
        say("jax: warming up")
        sides["jax"].ask("warm_up")
        say(f"{rounds} rounds")
        seconds = timing.interleave({name: side.turn for name, side in sides.items()}, rounds)
        for side in sides.values():
            side.ask("finish")
    facts = {name: side.facts for name, side in sides.items()}
    return summarize(spec, described, cold, facts, seconds, pilot)


def _fastest_torch(
    spec: Spec, jax_facts: Mapping[str, Any], stack: ExitStack, say: Callable[[str], None]
) -> tuple[Side, list[dict[str, Any]]]:
    """Start PyTorch in every way that may be its fastest, and keep the one that is.

    On a CPU these are both layouts, and OpenMP's threads spinning or sleeping while they wait:
    spinning is faster on an idle machine, and several times slower on one whose cores are shared.
    """
    layouts, policies = ("channels_last",), (os.environ.get("OMP_WAIT_POLICY"),)
    if jax_facts["platform"] == "cpu":
        layouts = ("nchw", "channels_last")
        policies = (None, "passive") if policies == (None,) else policies
    sides, ends = {}, {}
    for way in itertools.product(layouts, policies):
        layout, policy = way
        say(f"torch: starting, {layout}, OMP_WAIT_POLICY {policy or 'not set'}")
        environment = {"OMP_WAIT_POLICY": policy} if policy else {}
        worker = started("torch", spec._replace(layout=layout), environment)
        ends[way] = stack.enter_context(ExitStack())
        sides[way] = ends[way].enter_context(worker)
        check_comparable(spec.model, jax_facts, sides[way].facts)
        sides[way].ask("warm_up")
        sides[way].facts.update(layout=layout, omp_wait_policy=policy)
    turns = {way: side.turn for way, side in sides.items()}
    seconds = timing.interleave(turns, PILOT_ROUNDS)
    best = min(seconds, key=lambda way: median(seconds[way]))
    for way, end in ends.items():
        if way != best:
            end.close()
    sides[best].forget()
    return sides[best], [
        {"layout": way[0], "omp_wait_policy": way[1], "milliseconds": [1000 * x for x in taken]}
        for way, taken in seconds.items()
    ]


def check_comparable(model: str, jax: Mapping[str, Any], torch: Mapping[str, Any]) -> None:
    """Raise UsageError where the two sides are not the same net on the same device."""
    for fact, hint in (
        ("platform", "set JAX_PLATFORMS=cpu, or install the build of the other that has the GPU"),
        ("device_count", "let it see one alone, by CUDA_VISIBLE_DEVICES=0"),
        ("parameters", f"{model} is another network there; compare another model"),
    ):
        if jax[fact] != torch[fact]:
            raise UsageError(
                f"{fact.replace('_', ' ')} of JAX's side is {jax[fact]}, of PyTorch's "
                f"{torch[fact]}: {hint}"
            )
