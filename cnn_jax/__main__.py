"""The commands of the installed package: `cnn-jax NAME --flags`."""

import importlib.util
import os
import pkgutil
import sys
from collections.abc import Sequence

from cnn_jax.errors import unknown

# They travel inside the wheel; in a checkout they lie beside the library.
_PACKAGES = ("cnn_jax.experiments", "experiments")


def commands() -> dict[str, str]:
    """Return name -> module of every command, in alphabetical order."""
    package = next(name for name in _PACKAGES if importlib.util.find_spec(name) is not None)
    places = importlib.util.find_spec(package).submodule_search_locations
    names = sorted(module.name for module in pkgutil.iter_modules(places) if not module.ispkg)
    return {name: f"{package}.{name}" for name in names if name != "app"}


def usage(names: Sequence[str]) -> str:
    """Return what is printed for `cnn-jax --help`."""
    return (
        "usage: cnn-jax NAME [--flags]   run a command; cnn-jax NAME --help lists its flags\n\n"
        f"commands: {' '.join(names)}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Replace this process by the command's, or print how it is used.

    Args:
      arguments: a command's name and its flags; by default those of the process.
    """
    name, *flags = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    known = commands()
    if name in ("-h", "--help", "help"):
        print(usage(list(known)))
        return
    if name not in known:
        print("error:", unknown("command", name, list(known)), file=sys.stderr)
        sys.exit(2)
    # large arrays in pages of 2 MB: a tenth of a training step on a CPU, read when a process starts
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ
    # -P: a folder of the caller's that is called as a package of ours is not taken for it
    program = [sys.executable, "-P", "-m", known[name], *flags]
    os.execve(sys.executable, program, environment)


if __name__ == "__main__":
    main()
