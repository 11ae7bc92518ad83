"""Parts of a page that may fail without taking the others, or the run's results, along."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cnn_jax.errors import UsageError
from cnn_jax.reports import html
from cnn_jax.reports.html import Html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tell(what: str, error: Exception) -> str:
    """Print, and return, the one line that says what failed and why."""
    kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
    line = " ".join(f"{what} failed: {kind}{error}".split())
    print(line, file=sys.stderr, flush=True)
    return line


def attempt(what: str, make: Callable[..., Sequence[Html]], *args: Any) -> list[Html]:
    """Return the sections that make(*args) gives, or one that tells why it failed."""
    try:
        return list(make(*args))
    except Exception as error:  # whatever it is, training is done and the rest can be shown
        return [html.section(what, tell(what, error))]


def picture(draw: Callable[[], "Figure"], path: str | os.PathLike, caption: str) -> Html:
    """Return what draw() gives as a figure, kept at the path, or the line that tells why not."""
    try:
        return html.figure(html.figure_png(draw(), path), caption)
    except Exception as error:  # as above
        return html.paragraph(tell(f"drawing {os.path.basename(path)}", error))
