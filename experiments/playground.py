"""A network to play with in the browser: train it, look into it, fool it, on one page.

python -m experiments.playground
python -m experiments.playground --workdir=runs/digits
python -m experiments.playground --export=page.html

Without --export the page is served on this machine, with real JAX behind it: any run or published
network (by default the one that comes with the set-up), photographs, and all that looks into them.
The exported page is one file that works without any network: digits, shapes and the code that
trains are inside of it. With --workdir it opens with that run's network, and trains on from it.
"""

import functools
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cnn_jax import trained
from cnn_jax.data import sample_photographs
from cnn_jax.errors import UsageError
from cnn_jax.playground import computations, datasets, page, server
from cnn_jax.playground import network as networks
from cnn_jax.playground.training import Training
from cnn_jax.training import checkpoint
from cnn_jax.weights import pretrained

from . import app
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
network_flags.define_dataset()
subjects.define_images()
subjects.define_examples()
_EXPORT = flags.DEFINE_string(
    "export",
    None,
    "File that the page is written to, instead of being served; an existing one is replaced.",
    module_name="What",
)
_HOST = flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Address to listen on. Beyond this machine the page opens by the printed address alone, which "
    "holds a token; whoever has it may use the page, and what passes is not encrypted.",
    module_name="Server",
)
_PORT = flags.DEFINE_integer(
    "port",
    None,
    "Port to listen on; by default the first free one from 8700 on.",
    lower_bound=1,
    upper_bound=65535,
    module_name="Server",
)
_RUNS = flags.DEFINE_string(
    "runs",
    "runs/playground",
    "Folder for the runs that are started from the page.",
    module_name="Server",
)


def export() -> None:
    """Write the page to the file of --export."""
    file = Path(_EXPORT.value).expanduser()
    data, network = None, None
    if flags.FLAGS.workdir or flags.FLAGS.weights or flags.FLAGS.model:
        found = network_flags.load_network()
        own, network = networks.embed(found, _title(found))
        data = [own, datasets.digits(), datasets.shapes()]
    text = page.render(data, network)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {file}: {error.strerror}") from None
    print(f"{file}: {len(text) / 1e6:.1f} MB; open it in a browser")


def _title(network: trained.Trained) -> str:
    step = network.source.get("step")
    return network.model.name if step is None else f"{network.model.name}, step {step}"


def serve() -> None:
    """Serve the page until Ctrl-C."""
    training = Training(Path(_RUNS.value).expanduser())
    workdir = flags.FLAGS.workdir if flags.FLAGS.weights is None else None
    name = workdir or flags.FLAGS.model or pretrained.EMBEDDED[0]
    choices = {name: _named, "trained here": training.subject}
    if workdir and not checkpoint.steps(checkpoint.checkpoint_directory(workdir)):
        if not (Path(workdir) / "config.json").exists():
            raise UsageError(f"there is no run in {workdir}; give the --workdir of a training run")
        choices = {pretrained.EMBEDDED[0]: _embedded, **choices}  # until it saves its first
    playground = server.Playground(choices, training, Path(workdir) if workdir else None)
    playground.subject(next(iter(choices)))  # what is wrong with it is told before anyone asks
    token = secrets.token_urlsafe(16)
    listener = server.listen(_HOST.value, _PORT.value)
    application = server.application(playground, _render, token, _HOST.value)
    print(f"the playground: {server.address(listener, _HOST.value, token)}  (Ctrl-C ends it)")
    sys.stdout.flush()
    server.run(application, listener)


@functools.cache
def _render(token: str) -> str:
    return page.render(server=token)


def _named() -> computations.Subject:
    """Return the network of the flags, with the photographs or examples that they name."""
    network = network_flags.load_network()
    files = subjects.image_files(network)
    if files:
        return computations.Subject(network, computations.photographs_of(network, files))
    dataset = network_flags.load_dataset(network, answers=False)
    return computations.Subject(
        network, computations.examples(network, dataset, flags.FLAGS.examples)
    )


def _embedded() -> computations.Subject:
    network = trained.embedded()
    files = [str(each.path) for each in sample_photographs.PHOTOGRAPHS]
    return computations.Subject(network, computations.photographs_of(network, files))


def main(argv: Sequence[str]) -> None:
    del argv
    if _EXPORT.value:
        export()
    else:
        serve()


if __name__ == "__main__":
    app.run(main)
