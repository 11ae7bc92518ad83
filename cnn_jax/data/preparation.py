"""Finding prepared data sets on disk, and preparing them."""

import contextlib
import importlib
import importlib.util
import io
import os
import re
import tempfile
from pathlib import Path

from cnn_jax import errors
from cnn_jax.errors import UsageError

# Our builders, imported when needed: tensorflow_datasets takes two seconds to import.
EMBEDDED = {  # need no files: prepared on first use
    "digits": "cnn_jax.data.builders.digits:Digits",
    "shapes": "cnn_jax.data.builders.shapes:Shapes",
}
FROM_ORIGINALS = {  # prepared from the files their authors published
    "mnist": "cnn_jax.data.builders.mnist:MNIST",
    "fashion_mnist": "cnn_jax.data.builders.mnist:FashionMNIST",
    "cifar10": "cnn_jax.data.builders.cifar:Cifar10",
    "cifar100": "cnn_jax.data.builders.cifar:Cifar100",
}


def resolve_data_dir(data_dir: str | None = None) -> Path:
    """Where data sets lie: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir).expanduser().absolute()


def find_prepared(name: str, data_dir: str | None = None) -> Path | None:
    """The folder of a prepared data set (the newest version), or None.

    Args:
      name: as TFDS writes it: "name", "name/configuration", "name:version".
      data_dir: where data sets lie, see resolve_data_dir.

    Raises:
      UsageError: there are several configurations and the name does not say which.
    """
    if not re.fullmatch(r"\w+(/[\w.-]+)?(:[\d.]+)?", name):
        return None
    name, _, version = name.partition(":")
    folders = [
        info.parent
        for pattern in ("*/dataset_info.json", "*/*/dataset_info.json")
        for info in (resolve_data_dir(data_dir) / name).glob(pattern)
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name) and version in ("", info.parent.name)
    ]
    configurations = sorted({folder.parent for folder in folders})
    if len(configurations) > 1:
        names = ", ".join(f"{name}/{folder.name}" for folder in configurations)
        raise UsageError(f"data set {name!r} is there in several configurations, name one: {names}")
    return max(folders, key=lambda folder: [int(n) for n in folder.name.split(".")], default=None)


def locate(name: str, data_dir: str | None = None) -> Path:
    """The folder of a prepared data set; the embedded ones are prepared on first use.

    Raises:
      UsageError: unknown or not prepared; the message names the command that prepares it.
    """
    folder = find_prepared(name, data_dir)
    if folder is None and name in EMBEDDED:
        folder = prepare(name, data_dir)
    if folder is None:
        _check_known(name)
        command = f"./launch.sh prepare_data --dataset={name}"
        command += f" --data_dir={data_dir}" if data_dir else ""
        raise UsageError(
            f"data set {name!r} is not prepared under {resolve_data_dir(data_dir)}; "
            f"prepare it with: {command}"
        )
    return folder


def prepare(name: str, data_dir: str | None = None, source_dir: str | None = None) -> Path:
    """Prepares a data set as array_record files, unless it is there, and returns its folder.

    The files appear in one rename, so that an interrupted run leaves nothing half-made and two
    processes may prepare the same data set at once.

    Args:
      name: "digits", "mnist", ..., or any name of TFDS.
      data_dir: where data sets lie, see resolve_data_dir.
      source_dir: a folder with the original files, for those who have them; they are downloaded
        otherwise. For TFDS's own builders this is the folder of manual downloads.

    Raises:
      UsageError: unknown name, no network, a damaged file, or TensorFlow is needed and missing.
    """
    if folder := find_prepared(name, data_dir):
        return folder
    root = resolve_data_dir(data_dir)
    if source_dir and not Path(source_dir).expanduser().is_dir():
        raise UsageError(f"no such folder: --source_dir={source_dir}")
    with _preparing_in(root) as scratch:
        if name in EMBEDDED:
            _write(_import_builder(EMBEDDED[name])(data_dir=scratch))
        elif name in FROM_ORIGINALS:
            builder = _import_builder(FROM_ORIGINALS[name])
            files = builder.obtain_files(source_dir, root / "downloads" / name)
            _write(builder(data_dir=scratch, files=files))
        else:
            _check_known(name)
            _write_official(name, scratch, root / "downloads", source_dir)
        prepared = find_prepared(name, scratch)
        destination = root / prepared.relative_to(scratch)
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            prepared.rename(destination)
        except OSError:  # another process was faster
            if not (destination / "dataset_info.json").exists():
                raise
    return destination


@contextlib.contextmanager
def _preparing_in(root: Path):
    """A scratch folder on the file system of `root`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".preparing_", dir=root)
    except OSError as error:
        raise UsageError(
            f"cannot write data sets to {root} ({error.strerror}); choose another --data_dir"
        ) from error
    with scratch as path:
        yield Path(path)


def _import_builder(address: str):
    module, _, attribute = address.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _write(builder) -> None:
    """Runs one of our builders, which download nothing by themselves."""
    import tensorflow_datasets as tfds

    tfds.display_progress_bar(builder.name != "digits")  # over in a second
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):  # it announces a download of unknown size
        builder.download_and_prepare(file_format="array_record", download_config=config)


def _write_official(name: str, data_dir: Path, download_dir: Path, source_dir: str | None) -> None:
    """Runs TFDS's own builder."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import DownloadError, downloader

    downloader.MAX_RETRIES = 1  # its 10 take 205 s to find that there is no network
    config = tfds.download.DownloadConfig(manual_dir=source_dir, try_download_gcs=False)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except ValueError as error:
        raise UsageError(f"cannot prepare {name!r}: {_first_line(error)}") from error
    try:
        builder.download_and_prepare(
            file_format="array_record", download_dir=download_dir, download_config=config
        )
    except ImportError as error:
        if importlib.util.find_spec("tensorflow") is None:
            raise UsageError(
                f"preparing {name!r} needs TensorFlow (training does not): "
                ".venv/bin/pip install tensorflow-cpu, then repeat this command"
            ) from error
        raise UsageError(f"preparing {name!r} needs another package: {error}") from error
    except (OSError, DownloadError) as error:
        raise UsageError(f"cannot prepare {name!r}: {_first_line(error)}") from error
    except AssertionError as error:  # TFDS's way of asking for files one must get by hand
        raise UsageError(
            f"{name!r} is made from files that you get by hand; give their folder as --source_dir: "
            f"{' '.join(str(error).split())}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _check_known(name: str) -> None:
    import tensorflow_datasets as tfds

    base_name = re.split("[/:]", name)[0]
    official = tfds.list_builders(with_community_datasets=False)
    if base_name not in official:
        raise errors.unknown("data set", name, {*EMBEDDED, *FROM_ORIGINALS, *official})
