"""A network to play with in the browser: train it, look into it, fool it, on one page.

python -m experiments.playground --export=page.html
python -m experiments.playground --export=page.html --workdir=runs/digits

The exported page is one file that works without any network: digits, shapes and the code that
trains are inside of it. With --workdir it opens with that run's network, and trains on from it.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.playground import page

from . import app

_EXPORT = flags.DEFINE_string(
    "export", None, "File that the page is written to; an existing one is replaced."
)


def main(argv: Sequence[str]) -> None:
    del argv
    if not _EXPORT.value:
        raise UsageError("give --export=FILE.html, where the page is to be written")
    file = Path(_EXPORT.value).expanduser()
    text = page.render()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {file}: {error.strerror}") from None
    print(f"{file}: {len(text) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    app.run(main)
