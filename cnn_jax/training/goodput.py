"""What the time of a run went to: its updates, and all that is no update.

The goodput of a run is the share of its seconds in updates that stand. The rest went to starting,
compiling, waiting for input, evaluating, saving and restoring, and to updates that were made again
because the run was killed after them.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

FILE = "goodput.json"
_KEPT_EVERY = 5.0  # seconds


class Clock:
    """The seconds of one start of a run by phase, kept on disk with those of the starts before.

    A start that is killed loses what it did after it last kept them, a few seconds.
    """

    def __init__(self, workdir: str | os.PathLike, writes: bool, began: float):
        """Args: writes: whether this process keeps them.  began: by time.perf_counter."""
        self._path, self._writes = Path(workdir) / FILE, writes
        self._before = _starts(self._path)
        self._seconds: dict[str, float] = {}
        self._phase, self._since, self._kept = "starting", began, began
        self._steps = [0, 0]

    def begin(self, phase: str, step: int) -> None:
        """What follows, up to the next call, belongs to this phase; step: updates made so far."""
        now = time.perf_counter()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now
        self._steps[1] = step
        if now - self._kept > _KEPT_EVERY:
            self.keep()

    def goes_on_from(self, step: int) -> None:
        """The run begins here with this many updates."""
        self._steps = [step, step]

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self._steps[1]

    def keep(self) -> list[dict[str, Any]]:
        """Write the seconds so far; return those of all starts."""
        self._kept = time.perf_counter()
        first, last = self._steps
        own = {"from_step": first, "to_step": last, "seconds": self._seconds}
        starts = [*self._before, own]
        if self._writes:
            partial = self._path.with_suffix(".new")
            partial.write_text(json.dumps(starts))
            partial.replace(self._path)
        return starts


def _starts(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # there is none, or it is of no use; it decides nothing
        return []


def account(starts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the seconds of all starts of a run by cause, and its goodput.

    Returns:
      seconds: of all.  goodput: the share of it in updates that stand.  starts: how many.
      repeated: updates that were made again.  causes: phase -> seconds, among them "update" for
      those that stand and "repeated updates".
    """
    causes = dict.fromkeys(("update", "repeated updates"), 0.0)
    repeated = 0
    for i, start in enumerate(starts):
        made = start["to_step"] - start["from_step"]
        later = [each["from_step"] for each in starts[i + 1 :]]
        lost = min(max(0, start["to_step"] - min(later, default=start["to_step"])), made)
        repeated += lost
        for phase, seconds in start["seconds"].items():
            if phase != "step":
                causes[phase] = causes.get(phase, 0.0) + seconds
                continue
            again = seconds * lost / made if made else 0.0
            causes["repeated updates"] += again
            causes["update"] += seconds - again
    total = sum(causes.values())
    return {
        "seconds": total,
        "goodput": causes["update"] / total if total else None,
        "starts": len(starts),
        "repeated": repeated,
        "causes": causes,
    }


def line(found: dict[str, Any]) -> str:
    """Return one line of an account, the largest causes first."""
    rest = sorted(found["causes"].items(), key=lambda item: -item[1])
    named = [f"{name} {x:.1f} s" for name, x in rest if name != "update" and x >= 0.05]
    return f"{found['goodput']:.0%} of {found['seconds']:.1f} s; {', '.join(named)}"
