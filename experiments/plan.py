"""Tells what a training step will take on a pod, without one: memory, arithmetic, communication.

python -m experiments.plan --recipe=resnet50_v2 --topology=v5e:16x16
python -m experiments.plan --model=resnet50 --dtype=bfloat16 --batch_per_device=128 \\
    --topology=v5e:2x2,v5e:4x4,v5e:16x16
python -m experiments.plan --recipe=digits --topology=local

The step that training makes is compiled by the devices' own compiler, for TPUs libtpu, which needs
no TPU (CNN_JAX_DEVICE=tpu ./launch.sh setup, or pip install libtpu). Published peaks of the chip
turn the program into bounds.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.programs import plan
from cnn_jax.reports import plan as plan_report
from cnn_jax.reports import run_page
from cnn_jax.runtime import xla
from cnn_jax.runtime.parallel import check_batch_size
from cnn_jax.training import memory
from cnn_jax.training.plan import fitted_step, lowered_step, what_would_fit

from . import app
from .flags import training as training_flags

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of results.json and report.html.", module_name="Output"
)
_TOPOLOGY = flags.DEFINE_list(
    "topology",
    ["v5e:2x2"],
    "Devices to plan for, as v5e:16x16 (v4, v5p: three numbers), several for a curve, or local "
    "for those of this machine.",
    module_name="Plan",
)
_BATCH_PER_DEVICE = flags.DEFINE_integer(
    "batch_per_device",
    None,
    "Examples of an update on each device, in the place of --batch_size.",
    lower_bound=1,
    module_name="Plan",
)
training_flags.define()


def main(argv: Sequence[str]) -> None:
    del argv
    if "local" not in _TOPOLOGY.value:  # the compiler for TPUs takes no TPU
        jax.config.update("jax_platforms", "cpu")
    config = training_flags.config_from_flags(flags.FLAGS)
    if _BATCH_PER_DEVICE.value is not None and flags.FLAGS["batch_size"].present:
        raise UsageError("--batch_per_device and --batch_size are two ways to say it; give one")
    workdir = os.path.expanduser(_WORKDIR.value or f"runs/plan_{config.model}")
    cache = xla.cache_folder()
    cache = cache and cache / "plans"
    rows: list[dict[str, Any]] = []
    for name in _TOPOLOGY.value:
        devices = plan.topology_devices(name)
        each = config
        if _BATCH_PER_DEVICE.value is not None:
            batch_size = _BATCH_PER_DEVICE.value * len(devices)
            each = dataclasses.replace(config, batch_size=batch_size)
        check_batch_size(each.batch_size, len(devices), each.accumulate or 1)
        print(f"{name}: {len(devices)} devices, compiling", flush=True)
        kind = devices[0].device_kind
        if each.memory_limit is not None:
            each, found = fitted_step(each, devices, cache)
        else:
            try:
                found = plan.compile_for_account(lowered_step(each, devices), cache)
            except plan.DoesNotFit as refused:
                would = what_would_fit(each, devices, refused, cache)
                raise UsageError(f"{refused}{would}") from None
        limits = plan.bounds(found, kind, len(devices))
        chip, most = plan.chip_of(kind), None
        if chip is not None:
            most = plan.largest_batch(
                found["argument_bytes"],
                found["peak_bytes"],
                chip.memory,
                each.batch_size,
                len(devices),
            )
        rows.append(
            {"topology": name, "device_kind": kind, "devices": len(devices)}
            | {"batch_size": each.batch_size}
            | ({} if each.memory_limit is None else memory.chosen(each, found))
            | found
            | {"bounds": limits, "fits": limits["fits"], "largest_batch": most}
        )
        print(plan_report.line(rows[-1]), flush=True)
    chosen = {"topology": _TOPOLOGY.value, "batch_per_device": _BATCH_PER_DEVICE.value}
    chosen |= dataclasses.asdict(config)
    workdir = app.open_free_workdir(workdir, chosen, named=_WORKDIR.value is not None)
    run_page.finish(
        workdir,
        f"A plan for {config.model}",
        plan_report.sections(rows, workdir),
        rows[-1] | {"topologies": rows},
        "What one training step takes, told by the devices' own compiler; nothing was run.",
    )


if __name__ == "__main__":
    app.run(main)
