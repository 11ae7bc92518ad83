"""The files that authors published, found on disk or downloaded, and verified."""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from cnn_jax.errors import UsageError

_TIMEOUT = 20  # seconds without a byte
_CHUNK = 1 << 20


class OriginalFile(NamedTuple):
    """A published file: where it is, its size in bytes and the SHA-256 of its content."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, without its address."""
        return self.url.rpartition("/")[2]


def obtain(
    alternatives: Sequence[OriginalFile], source_dir: str | None, download_dir: Path
) -> Path:
    """The path of one of several equivalent files, its checksum verified.

    Args:
      alternatives: files with the same content in different formats; the first is downloaded.
      source_dir: a folder, searched with its sub-folders; then nothing is downloaded.
      download_dir: where downloads are kept for the next time.

    Raises:
      UsageError: not found, damaged, or no network.
    """
    if source_dir is not None:
        return _find(alternatives, Path(source_dir).expanduser())
    return _download(alternatives[0], Path(download_dir))


def _find(alternatives: Sequence[OriginalFile], folder: Path) -> Path:
    candidates = [(path, file) for file in alternatives for path in folder.rglob(file.name)]
    for path, file in candidates:
        if _is_intact(path, file):
            return path
    if candidates:
        path, file = candidates[0]
        raise UsageError(
            f"{path} is damaged or another file: its SHA-256 is not {file.sha256}; "
            f"download it again from {file.url}"
        )
    names = " or ".join(file.name for file in alternatives)
    raise UsageError(f"no {names} in {folder}; download it from {alternatives[0].url}")


def _is_intact(path: Path, file: OriginalFile) -> bool:
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _download(file: OriginalFile, folder: Path) -> Path:
    path = folder / file.name
    if path.exists() and _is_intact(path, file):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    bar = tqdm(desc=file.name, total=file.size, unit="B", unit_scale=True)
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT) as response, part.open("wb") as out:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
    except (OSError, http.client.HTTPException) as error:
        raise UsageError(
            f"cannot download {file.url} ({error}); get the file by another way and give its "
            "folder as --source_dir"
        ) from error
    else:
        if not _is_intact(part, file):
            raise UsageError(f"{file.url} is not the published file of SHA-256 {file.sha256}")
        return part.replace(path)
    finally:
        bar.close()
        part.unlink(missing_ok=True)
