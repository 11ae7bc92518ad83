"""Makes the lecture's gallery: a static site of its topics, with what the code computed for each.

python -m experiments.lecture
python -m experiments.lecture --only=convolution,saliency

Runs every command at demo size, each as a process of its own, about twenty minutes in all on two
cores, and gathers what they leave. Called again it goes on where it stopped, and makes anew only
what has changed. A command that fails is told on its topic's page, and the exit status is then 1.
"""

import signal
import sys
from collections.abc import Sequence

from absl import flags
from tqdm import tqdm

from cnn_jax.__main__ import commands
from cnn_jax.errors import UsageError, unknown
from cnn_jax.lecture import runner, site
from cnn_jax.lecture.topics import CHAPTERS, EXPERIMENTS
from cnn_jax.runtime.cores import cores
from cnn_jax.workdir import write_results

from . import app

_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/lecture", "Folder of the gallery: the site, and the commands' own folders."
)
_ONLY = flags.DEFINE_list(
    "only",
    None,
    f"Experiments to make, the others being shown as they are: {', '.join(EXPERIMENTS)}.",
)
_JOBS = flags.DEFINE_integer(
    "jobs",
    min(2, cores()),
    "How many commands run at a time; two use two cores better than one after the other.",
    lower_bound=1,
)


def chosen(names: Sequence[str] | None) -> list[str]:
    """Return the experiments to make, those before whose networks they look into.

    Raises:
      UsageError: one that is unknown.
    """
    for name in names or ():
        if name not in EXPERIMENTS:
            raise unknown("experiment", name, list(EXPERIMENTS))
    wanted = set(EXPERIMENTS if names is None else names)
    wanted |= {EXPERIMENTS[name].of for name in wanted}  # None is no name
    return [name for name in EXPERIMENTS if name in wanted]


def main(argv: Sequence[str]) -> None:
    del argv
    if flags.FLAGS.coordinator_address is not None:
        raise UsageError("the gallery is made by one process; call it without --processes")
    names = chosen(_ONLY.value)
    gallery = app.open_workdir(_WORKDIR.value, {"gallery": "lecture"})
    modules = commands()
    keys = runner.keys(EXPERIMENTS, modules)
    waiting = [name for name in names if not runner.is_made(gallery, name, keys[name])]
    # counted in seconds as they were measured, by which the bar tells the time that is left
    done = dict.fromkeys(waiting, 0.0)
    bar = tqdm(
        total=sum(EXPERIMENTS[name].seconds for name in waiting),
        disable=not waiting,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, about {remaining} left",
    )
    left, running = list(waiting), {}
    try:
        while left or running:
            for name in runner.ready(left, running, EXPERIMENTS)[: _JOBS.value - len(running)]:
                left.remove(name)
                running[name] = runner.make(gallery, name, EXPERIMENTS, keys[name], modules)
            bar.set_description_str(
                f"{', '.join(running)} ({len(waiting) - len(left)} of {len(waiting)})"
            )
            for name in list(running):
                expected = EXPERIMENTS[name].seconds
                seconds = next(running[name], None)
                done[name] = expected if seconds is None else min(seconds, 0.95 * expected)
                if seconds is None:
                    del running[name]
                    record = runner.read_record(gallery, name)
                    if record.status == "failed":
                        tqdm.write(f"{name} failed: {record.message}", file=sys.stderr)
            bar.update(sum(done.values()) - bar.n)
    finally:  # Ctrl-C leaves a site of what there is
        for run in running.values():
            run.close()
        bar.close()
        page = site.write(gallery, EXPERIMENTS, keys, CHAPTERS)
    records = {name: runner.read_record(gallery, name) for name in EXPERIMENTS}
    failed = [name for name in names if not runner.is_made(gallery, name, keys[name])]
    write_results(
        gallery,
        {
            "experiments": {
                name: record
                and {
                    "status": record.status,
                    "seconds": record.seconds,
                    "processor_seconds": record.processor_seconds,
                }
                for name, record in records.items()
            },
            "failed": failed,
        },
    )
    print(f"made {len(waiting) - len(failed)} of {len(waiting)} experiments  gallery: {page}")
    if failed:
        logs = ", ".join(str(gallery / "runs" / f"{name}.log") for name in failed)
        print(f"failed: {', '.join(failed)}; see {logs}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    # ends the command that runs as well, as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    app.run(main)
