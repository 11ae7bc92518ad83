"""How many cores a process may use: fewer than there are, under SLURM or Kubernetes."""

import math
import os
from contextlib import suppress
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: by its affinity and its control groups' quotas.

    A quota of a part of a core counts as a whole one.

    Args:
      root: the folder that holds proc and sys.
    """
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    return max(1, min(there, math.ceil(min(_quotas(root), default=there))))


def _quotas(root: Path) -> list[float]:
    """The quotas, in cores, of the process's control groups and of those above them."""
    found = []
    with suppress(OSError):  # not Linux
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            place = root / "sys/fs/cgroup" / controllers  # no controllers: version 2
            group = place / path.lstrip("/")
            # in a container of version 1 its own group lies at the place itself
            for folder in (group, *group.parents):
                found += _quota(folder)
                if folder == place:
                    break
    return found


def _quota(group: Path) -> list[float]:
    with suppress(OSError, ValueError):  # ValueError: "max", there is none
        quota, period = (group / "cpu.max").read_text().split()
        return [int(quota) / int(period)]
    with suppress(OSError):
        quota, period = (int((group / f"cpu.cfs_{x}_us").read_text()) for x in ("quota", "period"))
        return [quota / period] if quota > 0 else []
    return []
