"""Where training's numbers go: a JSON-lines file and TensorBoard."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tensorboardX import SummaryWriter

Write = Callable[[int, Mapping[str, float]], None]


class Log(NamedTuple):
    """An open log: write(step, metrics) and close()."""

    write: Write
    close: Callable[[], None]


def open_log(
    workdir: str | os.PathLike, start_step: int = 0, track: Write = lambda step, metrics: None
) -> Log:
    """Open `metrics.jsonl` and a TensorBoard event file under workdir/tensorboard.

    Lines of steps after start_step, which a killed run wrote after its last checkpoint, are
    dropped: the file reads as if the run had never stopped.

    Args:
      track: gets what is written too, see trackers.open_tracker.
    """
    path = Path(workdir) / "metrics.jsonl"
    kept = [line for line in _lines(path) if line["step"] <= start_step]
    whole = path.with_suffix(".jsonl.new")
    whole.write_text("".join(json.dumps(line) + "\n" for line in kept))
    whole.replace(path)
    # a JSON line is complete on disk as soon as it is written
    stream = path.open("a", buffering=1)
    board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=start_step + 1)

    def write(step: int, metrics: Mapping[str, float]) -> None:
        stream.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            board.add_scalar(name, value, step)
        track(step, metrics)

    def close() -> None:
        stream.close()
        board.close()

    return Log(write, close)


def read_log(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, one dict a logged step; [] where there is none."""
    return _lines(Path(workdir) / "metrics.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Parse whole lines; a half-written last one is what a kill left."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
