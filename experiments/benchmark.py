"""Measures how fast a model trains or answers, is broken or looked into, and images are decoded.

python -m experiments.benchmark --task=train --model=resnet50 --workdir=runs/speed
python -m experiments.benchmark --task=train --model=resnet18 --against=torch --workdir=runs/ratio
python -m experiments.benchmark --task=pgd --run=runs/digits --against=foolbox --workdir=runs/pgd
python -m experiments.benchmark --task=universal --run=runs/digits --against=art --workdir=runs/uap
python -m experiments.benchmark --task=compile --topology=v5e:2x2 --batch_size=512 \\
    --dtype=bfloat16 --against=flax --workdir=runs/counts
python -m experiments.benchmark --task=input --batch_size=128 --against=torch --workdir=runs/input
python -m experiments.benchmark --task=curves --workdir=runs/curves

--task=compile runs nothing: the training step is compiled by the devices' own compiler, for a TPU
without one, and the bytes that it accesses, its arithmetic, its peak memory and its collectives are
counted.

--task=curves measures the training step several times over: its time against the number of fake
devices, images a second against the batch, compile time against the depth, and memory against the
resolution.

Times are medians and quartiles over turns; compile times are those of fresh processes, one with an
empty compilation cache, one with what the first has left there.
"""

import sys
from collections.abc import Sequence
from types import ModuleType

import jax
from absl import flags

from cnn_jax import benchmark
from cnn_jax.benchmark.jax_side import TASKS, Task
from cnn_jax.benchmark.measurement import resolve
from cnn_jax.errors import UsageError
from cnn_jax.reports import benchmark as benchmark_report
from cnn_jax.reports import compiled as compiled_report
from cnn_jax.reports import curves as curves_report
from cnn_jax.reports import run_page

from . import app
from .flags import attacks as attack_flags

_OPPONENTS = "; ".join(
    f"{name}: {' or '.join(task.against)}" for name, task in TASKS.items() if task.against
)

_TASK = flags.DEFINE_string(
    "task", "train", f"Task that is measured: {', '.join(TASKS)}.", module_name="What"
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Model to measure, a name from cnn_jax.model_names() or package.module:function; by default "
    "resnet50, for --task=curves resnet20.",
    module_name="What",
)
_MODEL_OPTIONS = flags.DEFINE_string(
    "model_options", "", "Options of the model's family, as in 'dropout=0.3'.", module_name="What"
)
_RUN = flags.DEFINE_string(
    "run",
    None,
    "Folder of a training run, whose network and examples are taken instead of random ones.",
    module_name="What",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 16, "Number of images in a batch.", module_name="What"
)
_EPS = flags.DEFINE_string(
    "eps",
    None,
    "Budget of the attack, for pixels in 0..1, as in 0.03 or 8/255; by default that of "
    "the literature.",
    module_name="What",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side of the images in pixels; by default the model's.", module_name="What"
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Devices that --task=compile compiles for, as v5e:2x2, or local for those of this machine; "
    "--batch_size is that of all of them together.",
    module_name="What",
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "Number format in which the network computes.",
    module_name="What",
)
_INPUT = flags.DEFINE_enum(
    "input",
    "synthetic",
    ["synthetic", "decoded"],
    "Input of the task: synthetic is one batch that stays on the device, decoded reads "
    "JPEG files of 500x375 pixels.",
    module_name="What",
)
_NUM_THREADS = flags.DEFINE_integer(
    "num_threads",
    None,
    "Number of threads that decode images, and of PyTorch's processes that do; by default one a "
    "core.",
    module_name="What",
)
_AGAINST = flags.DEFINE_string(
    "against",
    None,
    f"Package to compare with, in alternating turns, by task: {_OPPONENTS}.",
    module_name="Comparison",
)
_TORCH_COMPILE = flags.DEFINE_boolean(
    "torch_compile",
    False,
    "Whether to compile PyTorch's model by torch.compile.",
    module_name="Comparison",
)
_ROUNDS = flags.DEFINE_integer("rounds", 10, "Number of turns of each side.", module_name="Timing")
_TURN_SECONDS = flags.DEFINE_float(
    "turn_seconds",
    1.0,
    "Duration of a turn in seconds, which makes one call at least.",
    module_name="Timing",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of results.json and report.html.", module_name="Output"
)


def _report_of(task: Task) -> ModuleType:
    if task.is_counted:
        return compiled_report
    return curves_report if task.is_varied else benchmark_report


def main(argv: Sequence[str]) -> None:
    del argv
    if _WORKDIR.value is None:
        raise UsageError("--workdir is missing; name a folder, as in --workdir=runs/speed")
    if jax.distributed.is_initialized():
        raise UsageError("benchmark measures one process; leave --coordinator_address out")
    if _RUN.value is not None and _MODEL.value is not None:
        raise UsageError("--model does not go with --run; a run knows its own model")
    spec = benchmark.Spec(
        task=_TASK.value,
        model=_MODEL.value,
        model_options=_MODEL_OPTIONS.value,
        against=_AGAINST.value,
        run=_RUN.value,
        batch_size=_BATCH_SIZE.value,
        eps=None if _EPS.value is None else attack_flags.number(_EPS.value),
        topology=_TOPOLOGY.value,
        image_size=_IMAGE_SIZE.value,
        dtype=_DTYPE.value,
        input=_INPUT.value,
        num_threads=_NUM_THREADS.value,
        turn_seconds=_TURN_SECONDS.value,
        torch_compile=_TORCH_COMPILE.value,
        plugin=tuple(flags.FLAGS.plugin),
    )
    config = resolve(spec, _ROUNDS.value)._asdict() | {"rounds": _ROUNDS.value}
    workdir = app.open_workdir(_WORKDIR.value, config)
    results = benchmark.measure(
        spec,
        rounds=_ROUNDS.value,
        say=lambda line: print(line, file=sys.stderr),
    )
    report = _report_of(TASKS[_TASK.value])
    print("\n".join(report.lines(results)))
    run_page.finish(
        workdir,
        f"Benchmark: {report.title(results)}",
        report.sections(results, workdir),
        results,
        report.introduction(results),
    )


if __name__ == "__main__":
    app.run(main)
