"""Sphinx's settings: `./launch.sh docs` builds the site, strictly, into build/docs."""

import importlib
import pkgutil
import re
import sys
import types
from pathlib import Path

from sphinx.errors import ExtensionError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

project = "cnn_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "cnn_jax"
html_show_copyright = False
html_static_path: list[str] = []
exclude_patterns = ["pictures/*.sh"]
myst_heading_anchors = 3

default_role = "code"  # docstrings mark code by single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The reference: a page a room, in the order of reading; benchmark is for its command alone.
ROOMS = {
    "cnn_jax": "The package's front door",
    "cnn_jax.models": "Models",
    "cnn_jax.layers": "Layers",
    "cnn_jax.looping": "Alike blocks as one loop",
    "cnn_jax.ops": "Operations on arrays",
    "cnn_jax.taps": "Taps: reading and disturbing activations",
    "cnn_jax.data": "Data",
    "cnn_jax.tasks": "Losses, targets and metrics",
    "cnn_jax.training": "Training",
    "cnn_jax.evaluation": "Evaluation",
    "cnn_jax.trained": "Trained networks",
    "cnn_jax.answers": "Asking what is on a photograph",
    "cnn_jax.object_detection": "Asking a detector",
    "cnn_jax.test_time_augmentation": "Test-time augmentation",
    "cnn_jax.visualize": "Visualisation",
    "cnn_jax.attacks": "Attacks",
    "cnn_jax.weights": "Weights",
    "cnn_jax.export": "Export",
    "cnn_jax.programs": "Traced programs",
    "cnn_jax.runtime": "Runtime",
    "cnn_jax.plugins": "Plugins",
    "cnn_jax.trackers": "Trackers",
    "cnn_jax.runs": "Several runs",
    "cnn_jax.sweeps": "Grids of runs",
    "cnn_jax.playground": "The playground",
    "cnn_jax.lecture": "The lecture's worked examples",
    "cnn_jax.reports": "Report pages",
}
SECTION = re.compile(r"\s*(Args|Returns|Raises|Yields):$")
FIELD = re.compile(r"[a-z_]\w*[^.:]*(:| ->) ")
EXTERNAL = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|preload)[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|url\(["']?(?:https?:)?//|@import\s+["'](?:https?:)?//"""
)


def write_reference(app) -> None:
    """Write reference/: for each room a page with its public modules, and their list."""
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    entries = []
    for room, title in ROOMS.items():
        package = importlib.import_module(room)
        names = [room]
        if hasattr(package, "__path__") and room != "cnn_jax":
            found = pkgutil.walk_packages(package.__path__, room + ".")
            names += [module.name for module in found]
        parts = [f"# {title}"]
        for name in names:
            # a package shows the same again that its modules define
            members = name == "cnn_jax" or not hasattr(sys.modules.get(name), "__path__")
            options = "\n   :members:" * members + "\n   :no-index:" * (name == "cnn_jax")
            directive = f"```{{eval-rst}}\n.. automodule:: {name}{options}\n```"
            parts.append(f"## `{name}`\n\n{directive}")
        _write(folder / f"{room}.md", "\n\n".join(parts) + "\n")
        entries.append(f"{title} <{room}>")
    listing = "\n".join(["# Reference", "", "```{toctree}", *entries, "```", ""])
    _write(folder / "index.md", listing)


def _write(file: Path, text: str) -> None:
    """An unchanged page stays as it is, and is not built again."""
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def mark_up(app, what, name, obj, options, lines) -> None:
    """Turn our plain docstrings into reStructuredText: escapes, and fields as lists."""
    paragraphs = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    lines[:] = [line for part in paragraphs for line in [*_paragraph(part), ""]]


def _paragraph(lines: list[str]) -> list[str]:
    lines = [_escaped(line) for line in lines]
    if not lines or SECTION.match(lines[0]):  # napoleon's
        return lines
    base = len(lines[0]) - len(lines[0].lstrip())
    depths = {len(line) - len(line.lstrip()) - base for line in lines}
    fields = [FIELD.match(line.strip()) is not None for line in lines]
    if fields[0] and len(depths) <= 2 and (len(depths) == 2 or all(fields)):
        rows = [line[base:] for line in lines]
        rows = [f"  {row.strip()}" if row[0] == " " else f"- {row}" for row in rows]
        return [" " * base + row for row in rows]
    if len(depths) > 1:
        return [f"| {line}" for line in lines]  # as it stands
    return lines


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"([*|\\`]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    return re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", "".join(parts))  # `array`s


def leave_out(app, what, name, obj, skip, options) -> bool | None:
    """The fields of a NamedTuple are described by its docstring."""
    return True if type(obj).__name__ in ("_tuplegetter", "member_descriptor") else None


def refuse_other_hosts(app, exception) -> None:
    """The finished site fetches nothing from anywhere else."""
    if exception is not None:
        return
    for file in sorted(Path(app.outdir).rglob("*")):
        if file.suffix in (".html", ".css"):
            found = EXTERNAL.search(file.read_text(errors="replace"))
            if found:
                raise ExtensionError(f"{file} fetches from another host: {found.group()}")


def setup(app: types.SimpleNamespace) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", mark_up, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", leave_out)
    app.connect("build-finished", refuse_other_hosts)
