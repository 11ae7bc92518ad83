"""How the cost of a training step grows: with devices, batch, depth and resolution.

Each point is a worker of its own, which compiles with an empty cache. The points of a curve whose
steps are timed take turns, so that whatever slows the machine down for a while slows all alike.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from cnn_jax.benchmark import machine
from cnn_jax.benchmark.process import started
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.summary import distribution
from cnn_jax.errors import UsageError
from cnn_jax.models import create_model
from cnn_jax.training.config import literal_options


class Point(NamedTuple):
    """What is measured at one value, and the environment variables of its worker."""

    spec: Spec
    environment: Mapping[str, str] = {}


def _on_devices(spec: Spec, count: int) -> Point:
    flags = os.environ.get("XLA_FLAGS", "")
    flags = f"{flags} --xla_force_host_platform_device_count={count}".strip()
    return Point(spec, {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})


def _in_batches(spec: Spec, size: int) -> Point:
    return Point(spec._replace(batch_size=size))


def _of_depth(spec: Spec, depth: int) -> Point:
    options = ", ".join(filter(None, (spec.model_options, f"depth={depth}")))
    return Point(spec._replace(model_options=options))


def _of_size(spec: Spec, share: float) -> Point:
    return Point(spec._replace(image_size=round(share * spec.image_size)))


class Curve(NamedTuple):
    """A row of the table.

    point(spec, value) -> what is measured there.
    values: of what is varied; of the image's size, its multiples.
    is_timed: whether steps are made, and not only compiled.
    """

    point: Callable[[Spec, Any], Point]
    values: Sequence[float]
    is_timed: bool = False


CURVES = {
    "devices": Curve(_on_devices, (1, 2, 4, 8), is_timed=True),
    "batch": Curve(_in_batches, (1, 2, 4, 8, 16, 32, 64, 128), is_timed=True),
    "depth": Curve(_of_depth, (20, 32, 44, 56, 80, 110)),
    "resolution": Curve(_of_size, (1, 1.5, 2, 3, 4, 6)),
}


def check(spec: Spec) -> None:
    """Raise UsageError where a point of a curve cannot be measured."""
    if spec.input != "synthetic":
        raise UsageError(f"--task={spec.task} does not take --input={spec.input}; leave it out")
    most = max(CURVES["devices"].values)
    if spec.batch_size % most:
        raise UsageError(
            f"--batch_size={spec.batch_size} does not divide by {most} devices; give a multiple"
        )
    for depth in CURVES["depth"].values:
        point, _ = _of_depth(spec, depth)
        try:
            create_model(spec.model, **literal_options(point.model_options))
        except UsageError as error:
            raise UsageError(
                f"--task={spec.task} varies the depth, which {spec.model} does not take ({error}); "
                "give --model=resnet20"
            ) from error


def measure(
    spec: Spec, rounds: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Return the points of each curve.

    Args:
      rounds: turns of each point of a curve whose steps are timed.
      say: takes lines about what is going on.

    Returns:
      spec, machine, and curves: name -> a list of points, each with value, batch_size, image_size,
      trace_seconds, compile_seconds, program_bytes (on each device), parameters, and where steps
      are timed milliseconds and images_per_second, as median, quartiles and values.

    Raises:
      UsageError: see check.
    """
    check(spec)
    described = machine.describe()
    found = {}
    for name, curve in CURVES.items():
        points = {value: curve.point(spec, value) for value in curve.values}
        with ExitStack() as stack:
            sides, seconds = {}, {}
            for value, (own, environment) in points.items():
                say(f"{name}: {value:g}")
                with ExitStack() as alone:
                    folder = alone.enter_context(tempfile.TemporaryDirectory())
                    cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
                    sides[value] = alone.enter_context(started("jax", own, environment | cache))
                    if curve.is_timed:
                        sides[value].ask("warm_up")
                        stack.push(alone.pop_all())
            for _ in range(rounds if curve.is_timed else 0):
                for value, side in sides.items():
                    seconds.setdefault(value, []).append(side.turn())
        found[name] = [
            _row(value, points[value].spec, sides[value].facts, seconds.get(value))
            for value in curve.values
        ]
    return {
        "spec": {name: getattr(spec, name) for name in _OF_SPEC},
        "machine": described,
        "rounds": rounds,
        "curves": found,
    }


_OF_SPEC = ("task", "model", "model_options", "batch_size", "image_size", "dtype")
_FACTS = ("trace_seconds", "compile_seconds", "program_bytes", "parameters", "platform")


def _row(
    value: float, spec: Spec, facts: Mapping[str, Any], seconds: Sequence[float] | None
) -> dict[str, Any]:
    row = {"value": value, "batch_size": spec.batch_size, "image_size": spec.image_size}
    row |= {name: facts[name] for name in _FACTS}
    if seconds is not None:
        row["milliseconds"] = distribution([1000 * each for each in seconds])
        row["images_per_second"] = distribution([spec.batch_size / each for each in seconds])
    return row
