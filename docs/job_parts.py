"""Prints what a whole command's time goes to, in seconds by part, as a row of Markdown.

python -m docs.job_parts evaluate --workdir=runs/evaluated --dataset=folder:photographs
python -m docs.job_parts architectures --workdir=runs/compared

py-spy (pip install py-spy) looks at the command fifty times a second, from a process of its own:
each look counts for what the main thread is at. "Computing" is where compiled programs are called
and waited for; what other processes of the command do is in "the rest".
"""

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

RATE = 50  # looks a second; more of them slow the command down
# The innermost call that is of a part tells it.
PARTS = {
    "imports": r"<frozen importlib\._bootstrap>",
    "compiling": r"^backend_compile",
    "reading programs": r"jax/_src/compilation_cache\.py|^deserialize_executable",
    "tracing": r"^trace_to_jaxpr|^_trace_for_jit|^lower_|jax/_src/interpreters/mlir\.py",
    "drawing": r"/?matplotlib/",
    "images": r"\bPIL/|cnn_jax/data/",
    "checkpoints": r"\borbax/|cnn_jax/training/checkpoint\.py",
    "computing": r"jax/_src/array\.py|^block_until_ready|cnn_jax/(attacks|visualize)/"
    r"|cnn_jax/(evaluation|runtime/platform_loop|training/loop)\.py",
}
REST = "the rest"


def parts(stacks: str) -> Counter[str]:
    """Return how many looks found each part, of a text of py-spy's raw format."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, looks = line.rpartition(" ")
        names = frames.split(";")
        if names[0].startswith("_run_module_as_main"):  # the main thread
            found[part(names)] += int(looks)
    return found


def part(frames: list[str]) -> str:
    """Return the part that a stack belongs to, from its frames, the outermost first."""
    for frame in reversed(frames):
        for name, pattern in PARTS.items():
            if re.search(pattern, frame):
                return name
    return REST


def main() -> None:
    command, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        began = time.perf_counter()
        subprocess.run(
            [
                *("py-spy", "record", "--idle", f"--rate={RATE}"),
                *("--format=raw", f"--output={stacks}", "--"),
                *(sys.executable, "-P", "-m", f"experiments.{command}", *options),
            ],
            check=True,
            stdout=sys.stderr,
        )
        seconds = time.perf_counter() - began
        found = parts(stacks.read_text())
    names = [*PARTS, REST]
    print("| command | by the clock | " + " | ".join(names) + " |")
    print("|" + "---|" * (len(names) + 2))
    shares = [f"{found[name] / RATE:.0f}" for name in names]
    print(f"| `{command} {' '.join(options)}` | {seconds:.0f} | " + " | ".join(shares) + " |")


if __name__ == "__main__":
    main()
