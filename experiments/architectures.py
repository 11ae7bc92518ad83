"""Compares all registered networks, or lists the layers of one: size, cost and what they see.

python -m experiments.architectures --workdir=runs/architectures
python -m experiments.architectures --model=vgg16 --workdir=runs/vgg16
python -m experiments.architectures --pretrained --model=resnet50

Everything counted is derived by tracing the networks; none is run. Published errors stand beside
with their protocol and source, and a lecture's own numbers where it has some.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import jax
from absl import flags

from cnn_jax import errors, plugins
from cnn_jax.models.published import COMPARISON_SLIDE, PUBLISHED, VGG16_REMARKS, VGG16_SLIDE
from cnn_jax.models.registry import find, model_names
from cnn_jax.programs.layer_table import Analysis, analyse_model
from cnn_jax.reports import architectures as pages
from cnn_jax.reports import run_page
from cnn_jax.runtime.cores import cores
from cnn_jax.weights.pretrained import pretrained

from . import app

_MODEL = flags.DEFINE_string(
    "model", None, "Network whose layers are listed; by default all networks are compared."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side of the image in pixels; by default each network's own."
)
_PRETRAINED = flags.DEFINE_boolean(
    "pretrained", False, "Only list the published weights that --weights knows by name."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/architectures", "Folder of results.json, report.html and the pictures."
)


def summary(name: str, image_size: int, net: Analysis) -> dict[str, Any]:
    """Return a network's row of results.json.

    params: trained ones. size_mb, size_mib: theirs in float32, in 10^6 and 2^20 bytes.
    statistics: numbers kept beside the parameters, such as running means.
    macs: multiply-accumulates of convolutions and dense layers for one image.
    activations: numbers in the input and the outputs of convolutions, dense layers and poolings,
    as the lecture counts; _of_weighted without input and poolings, _of_all with everything else.
    layers: convolutions and dense layers on the longest path; weighted_layers: all of them.
    receptive_field: of the last units with a place, in pixels along each axis, padding included.
    """
    published, slide = PUBLISHED.get(name), COMPARISON_SLIDE.get(name)
    return {
        "name": name,
        "image_size": image_size,
        "params": net.parameters,
        "statistics": net.statistics,
        "size_mb": net.parameter_bytes / 1e6,
        "size_mib": net.parameter_bytes / 2**20,
        "macs": net.macs,
        "activations": net.activations,
        "activations_of_weighted": net.activations_of_weighted,
        "activations_of_all": net.activations_of_all,
        "activation_mb": sum(row.bytes for row in net.layers if row.kind != "other") / 1e6,
        "layers": net.depth,
        "depth": net.depth,
        "weighted_layers": net.weighted_layers,
        "receptive_field": list(net.receptive_field),
        "published": published and published._asdict(),
        "lecture": slide and slide._asdict(),
    }


def analyses(names: Sequence[str], image_size: int | None) -> dict[str, Analysis]:
    """Analyse networks, one process a core: tracing is Python's work, and takes one core."""
    start = (get_context("spawn"), _prepare, (flags.FLAGS.plugin,))
    with ProcessPoolExecutor(min(cores(), len(names)), *start) as pool:
        found = pool.map(partial(analyse_model, image_size=image_size), names)
        return dict(zip(names, found, strict=True))


def _prepare(modules: Sequence[str]) -> None:
    """Make this process know the first one's networks, and leave that one the accelerator."""
    jax.config.update("jax_platforms", "cpu")
    plugins.load(modules)


def main(argv: Sequence[str]) -> None:
    del argv
    name, size = _MODEL.value, _IMAGE_SIZE.value
    if size is not None and size < 1:
        raise errors.UsageError(f"--image_size={size}; an image has a pixel at least")
    if _PRETRAINED.value:
        rows = [row for row in pretrained() if name in (None, row.model)]
        if not rows:
            raise errors.UsageError(f"no published weights of {name} are known here")
        print(pages.pretrained_text(rows))
        return
    if name is not None:
        find(name)  # raises for a name that is not there, before anything is written
    config = {"model": name, "image_size": size}
    workdir = app.open_free_workdir(_WORKDIR.value, config, named=_WORKDIR.present)
    nets = analyses(model_names(), size) if name is None else {name: analyse_model(name, size)}
    rows = [summary(each, size or find(each).image_size, net) for each, net in nets.items()]
    results: dict[str, Any] = {"models": rows}
    if name is None:
        print(pages.comparison_text(rows))
        title = "Convolutional networks compared"
        introduction = f"{len(rows)} networks at their native resolution, traced: none was run."
        sections = pages.comparison_sections(rows, workdir)
    else:
        net = nets[name]
        slide, remarks = (VGG16_SLIDE, VGG16_REMARKS) if name == "vgg16" else ((), ())
        rows[0]["rows"] = [layer._asdict() for layer in net.layers]
        rows[0]["lecture_rows"] = [layer._asdict() for layer in slide]
        print(pages.layers_text(name, net, slide, remarks))
        title = name
        introduction = (
            f"Layer by layer, for one image of {rows[0]['image_size']} pixels; counted by tracing."
        )
        sections = pages.layers_sections(net, slide, remarks)
    run_page.finish(workdir, title, sections, results, introduction)


if __name__ == "__main__":
    app.run(main)
