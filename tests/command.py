"""The commands as their users run them, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]


def run_command(
    name: str, *arguments: Any, cwd: str | os.PathLike = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Return the finished `python -m experiments.NAME ARGUMENTS`, run in this folder."""
    return subprocess.run(
        [sys.executable, "-P", "-m", f"experiments.{name}", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
