"""A whole measurement: workers started, compiled cold and from the cache, timed in turns."""

import importlib.util
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from cnn_jax import errors, plugins
from cnn_jax.benchmark import compiled, curves, machine
from cnn_jax.benchmark.inputs import write_images
from cnn_jax.benchmark.jax_side import TASKS
from cnn_jax.benchmark.process import Side, started
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.summary import summarize
from cnn_jax.errors import UsageError
from cnn_jax.models import create_model
from cnn_jax.models.registry import check_task
from cnn_jax.training import checkpoint
from cnn_jax.training.config import literal_options

# Of the GPU's memory, for JAX, which takes its share at the start, where PyTorch needs some too.
SHARED_FRACTION = "0.45"

# Turns of each way to run PyTorch, of which the fastest is measured. Of calls that are so long the
# first ones tell: starting up is a small part of them.
PILOT_ROUNDS, LONG_SECONDS = 3, 5

# How pip knows those who can be compared with.
PACKAGES = {
    "flax": "flax",
    "torch": "torch",
    "torchvision": "torchvision",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "adv_lib": "adv-lib",
    "autoattack": "git+https://github.com/fra31/auto-attack",
    "art": "adversarial-robustness-toolbox",
    "captum": "captum",
}


def resolve(spec: Spec, rounds: int) -> Spec:
    """Return the Spec with the run's model and size, or the task's and its size, and its input.

    Raises:
      UsageError: an unknown task, model or option, no such run, what does not go together, a
        number that makes no sense, a package that is not installed.
    """
    if spec.task not in TASKS:
        raise errors.unknown("task", spec.task, TASKS)
    task = TASKS[spec.task]
    if spec.against is not None:
        _check_opponent(spec.task, spec.against)
    _check_input(spec)
    if spec.run is not None:
        run = _of_run(Path(spec.run))
        plugin = tuple(dict.fromkeys((*spec.plugin, *run["plugin"])))
        spec = spec._replace(input="run", **run | {"plugin": plugin})
    spec = spec._replace(model=spec.model or task.model)
    plugins.load(spec.plugin)
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
    return spec._replace(
        image_size=spec.image_size or model.image_size,
        input="decoded" if task.decodes else spec.input,
    )


def _check_opponent(task: str, against: str) -> None:
    known = TASKS[task].against
    if not known:
        raise UsageError(f"--task={task} has nobody to compare with; leave --against out")
    if against not in known:
        raise UsageError(f"--task={task} is not compared with {against}; give {' or '.join(known)}")
    needed = (against,) if TASKS[task].is_counted else ("torch", against)
    for name in (*needed, "torchvision") if TASKS[task].decodes else needed:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"--against={against} needs {name}, which is not installed in this environment; "
                f"install it there: {sys.executable} -m pip install {PACKAGES[name]}"
            )


def _check_input(spec: Spec) -> None:
    """Raise UsageError where a task does not take network and images as they are asked for."""
    if TASKS[spec.task].is_counted != (spec.topology is not None):
        fitting = ", ".join(name for name, task in TASKS.items() if task.is_counted)
        raise UsageError(f"--topology goes with --task={fitting}, and that with --topology")
    if TASKS[spec.task].is_counted and (spec.input != "synthetic" or spec.torch_compile):
        raise UsageError(f"--task={spec.task} runs nothing; leave --input and --torch_compile out")
    if spec.eps is not None and not TASKS[spec.task].has_budget:
        raise UsageError(f"--task={spec.task} has no budget; leave --eps out")
    if not TASKS[spec.task].has_workload:
        if spec.run is not None:
            fitting = ", ".join(name for name, task in TASKS.items() if task.has_workload)
            raise UsageError(f"--run goes with another task than {spec.task}: {fitting}")
        return
    for name, value, known in (
        ("dtype", spec.dtype, "float32"),
        ("input", spec.input, "synthetic"),
        ("torch_compile", spec.torch_compile, False),
    ):
        if value != known:
            raise UsageError(f"--task={spec.task} does not take --{name}={value}; leave it out")


def _of_run(folder: Path) -> dict[str, Any]:
    """Return the model, its options, the image size and the plugins of a run."""
    file = folder.expanduser() / "config.json"
    try:
        config = json.loads(file.read_text())
        newest = checkpoint.newest_config(checkpoint.checkpoint_directory(folder.expanduser()))
        return {
            "plugin": tuple((newest or {}).get("plugin", ())),
            "model": config["model"],
            "model_options": config["model_options"],
            "image_size": config["eval_image_size"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{folder} holds no training run; give --run the --workdir of one"
        ) from None


def measure(
    spec: Spec,
    *,
    rounds: int = 10,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Return all that was measured, by name; see the experiment for what is in it.

    Args:
      rounds: turns of each side.
      say: takes lines about what is going on.

    Raises:
      UsageError: what cannot be measured, and why.
    """
    spec = resolve(spec, rounds)
    if TASKS[spec.task].is_counted:
        return compiled.measure(spec, say)
    if TASKS[spec.task].is_varied:
        return curves.measure(spec, rounds, say)
    described = machine.describe()
    with tempfile.TemporaryDirectory(prefix="cnn_jax_benchmark_") as folder, ExitStack() as stack:
        if spec.input == "decoded":
            write_images(Path(folder) / "images")
            spec = spec._replace(images=str(Path(folder) / "images"))
        if TASKS[spec.task].has_workload:
            spec = spec._replace(workload=str(Path(folder) / "workload.npz"))
        environment = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        if spec.against and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = SHARED_FRACTION
        say("jax: starting")
        sides = {"jax": stack.enter_context(started("jax", spec, environment))}
        cold = sides["jax"].facts
        if "compile_seconds" in cold:
            stack.close()
            say("jax: starting again, to compile from the cache")
            sides["jax"] = stack.enter_context(started("jax", spec, environment))
        pilot = None
        if spec.against:
            sides[spec.against], pilot = _fastest_torch(spec, sides["jax"].facts, stack, say)
        say("jax: warming up")
        sides["jax"].ask("warm_up")
        say(f"{rounds} rounds")
        seconds = interleave({name: side.turn for name, side in sides.items()}, rounds)
        for side in sides.values():
            side.ask("finish")
    facts = {name: side.facts for name, side in sides.items()}
    return summarize(spec, described, cold, facts, seconds, pilot)


def interleave(turns: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return what each side's turns gave, taken in the order A B A B."""
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            taken[name].append(turn())
    return taken


def _fastest_torch(
    spec: Spec, jax_facts: Mapping[str, Any], stack: ExitStack, say: Callable[[str], None]
) -> tuple[Side, list[dict[str, Any]]]:
    """Start PyTorch in every way that may be its fastest, and keep the one that is.

    On a CPU these are both layouts, and OpenMP's threads spinning or sleeping while they wait:
    spinning is faster on an idle machine, and several times slower on one whose cores are shared.
    """
    layouts, policies = ("channels_last",), (os.environ.get("OMP_WAIT_POLICY"),)
    if jax_facts["platform"] == "cpu" and not TASKS[spec.task].decodes:  # nothing is computed there
        layouts = ("nchw", "channels_last")
        policies = (None, "passive") if policies == (None,) else policies
    sides, ends = {}, {}
    for way in itertools.product(layouts, policies):
        layout, policy = way
        say(f"{spec.against}: starting, {layout}, OMP_WAIT_POLICY {policy or 'not set'}")
        environment = {"OMP_WAIT_POLICY": policy} if policy else {}
        worker = started("torch", spec._replace(layout=layout), environment)
        ends[way] = stack.enter_context(ExitStack())
        sides[way] = ends[way].enter_context(worker)
        check_comparable(spec.model, jax_facts, sides[way].facts)
        sides[way].ask("warm_up")
        sides[way].facts.update(layout=layout, omp_wait_policy=policy)
    seconds = {way: [side.facts["first_call_seconds"]] for way, side in sides.items()}
    if max(seconds.values())[0] <= LONG_SECONDS:
        seconds = interleave({way: side.turn for way, side in sides.items()}, PILOT_ROUNDS)
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
        if jax.get(fact) != torch.get(fact):
            raise UsageError(
                f"{fact.replace('_', ' ')} of JAX's side is {jax.get(fact)}, of PyTorch's "
                f"{torch.get(fact)}: {hint}"
            )
