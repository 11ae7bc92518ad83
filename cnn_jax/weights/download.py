"""Files of weights from the network: checked before they are used, kept in a cache.

The cache is `cnn_jax/weights` in $XDG_CACHE_HOME or ~/.cache. CNN_JAX_WEIGHTS names a folder that
holds such files already, which is only read, or the address of a mirror, both with the files under
their own names. CNN_JAX_OFFLINE=1 forbids the network.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cnn_jax.errors import UsageError

CONNECT_SECONDS, SILENT_SECONDS = 5, 30
PARTIAL_CONTENT = 206  # an answer from the byte on that was asked for
_BROKEN_OFF = ("ChunkedEncodingError", "ConnectionError", "ReadTimeout")  # of requests


def cache() -> Path:
    """Return the folder that downloaded files are kept in; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cnn_jax/weights"


def fetch(url: str, name: str | None = None, sha256: str | None = None) -> Path:
    """Return the local file of this address, downloaded if need be.

    Args:
      name: of the file, by default the address's last part. Where no hash is known the cache keeps
        a file of each address apart.
      sha256: the first hex digits that its hash must have.

    Raises:
      UsageError: no network, no such file, another content than promised, or no place to keep it;
        the message names the file, its address and where it may be put instead.
    """
    name = name or Path(urllib.parse.urlparse(url).path).name
    if not name:
        raise UsageError(f"{url} names no file; give the address of a file of weights")
    mirror = os.environ.get("CNN_JAX_WEIGHTS", "")
    if mirror and not _is_url(mirror):
        found = Path(mirror).expanduser() / name
        if found.exists():
            if not _is_whole(found, sha256):
                raise UsageError(f"{found} is damaged: its sha256 is not {sha256}...; get it anew")
            return found
    folder = cache()
    if sha256 is None:
        folder = folder / hashlib.sha256(url.encode()).hexdigest()[:12]
    file = folder / name
    if file.exists() and _is_whole(file, sha256):
        return file
    address = mirror.rstrip("/") + "/" + name if _is_url(mirror) else url
    remedy = (
        f"get {address} elsewhere and put it into {folder}, or name its folder: CNN_JAX_WEIGHTS"
    )
    if os.environ.get("CNN_JAX_OFFLINE", "0") not in ("", "0"):
        raise UsageError(f"{name} is not in the cache and CNN_JAX_OFFLINE is set; {remedy}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _partial(folder, name, kept=sha256 is not None) as partial:
            _download(address, partial)
            _check(Path(partial.name), address, sha256)
            os.replace(partial.name, file)
    except UsageError as error:
        raise UsageError(f"cannot get {name}: {error}; {remedy}") from None
    except OSError as error:  # requests' errors are too
        reason = error.strerror or _reason(error)
        raise UsageError(f"cannot get {name} from {address}: {reason}; {remedy}") from None
    return file


@contextlib.contextmanager
def _partial(folder: Path, name: str, kept: bool) -> Iterator[BinaryIO]:
    """Yield a file to append to, of this process alone, which is not there any more afterwards.

    Args:
      kept: it is left for the next call where the connection breaks off, and holds what an earlier
        one has left; not while another process writes to that. Only where a hash tells in the end
        whether both parts are of one file.
    """
    path = folder / f".{name}.part"
    partial = _locked(path) if kept else None
    if partial is None:
        kept, path = False, folder / f".{name}.{secrets.token_hex(4)}"
        partial = path.open("ab")
    with partial:
        try:
            yield partial
        except BaseException as error:
            if not (kept and type(error).__name__ in _BROKEN_OFF and partial.tell()):
                path.unlink(missing_ok=True)
            raise


def _locked(path: Path) -> BinaryIO | None:
    """Return the file opened for appending and locked; None where another process has it."""
    opened = path.open("ab")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # it may have been finished, and renamed, before it was locked
        if path.exists() and path.stat().st_ino == os.fstat(opened.fileno()).st_ino:
            return opened
    except OSError:  # locked, or a file system without locks
        pass
    opened.close()
    return None


def _download(url: str, partial: BinaryIO) -> None:
    """Append what is missing of the file, again where the connection breaks off but moves on."""
    while True:
        before = partial.tell()
        try:
            _append(url, partial)
            return
        except OSError as error:
            if type(error).__name__ != "ChunkedEncodingError" or partial.tell() == before:
                raise


def _append(url: str, partial: BinaryIO) -> None:
    import pooch  # here, as it takes a tenth of a second
    import requests

    timeout = (CONNECT_SECONDS, SILENT_SECONDS)
    have = partial.tell()
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(
        url, stream=True, timeout=timeout, headers=headers
    ) as answer:  # what is there
        if have and answer.status_code != PARTIAL_CONTENT:  # the server begins anew, and so do we
            partial.truncate(0)
            partial.seek(0)
            return _append(url, partial)
        answer.raise_for_status()
        size = int(answer.headers.get("content-length") or 0)
        kind = answer.headers.get("content-type", "")
    if "text/html" in kind:
        raise UsageError(f"{url} is a web page, not a file of weights")
    free = shutil.disk_usage(Path(partial.name).parent).free
    if size > free:
        raise UsageError(f"{url} has {size / 2**30:.1f} GiB, and {free / 2**30:.1f} are free")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise UsageError(f"{url} has {size / 2**30:.0f} GiB, more than this machine's memory")
    fetch = pooch.HTTPDownloader(progressbar=True, timeout=timeout, headers=headers)
    try:
        fetch(url, partial, None)
    finally:
        partial.flush()


def _check(file: Path, url: str, sha256: str | None) -> None:
    with file.open("rb") as opened:
        start = opened.read(256).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise UsageError(f"{url} is a web page, not a file of weights")
    if not _is_whole(file, sha256):
        raise UsageError(f"the sha256 of {url} does not begin with {sha256}")


def _is_whole(file: Path, sha256: str | None) -> bool:
    if sha256 is None:
        return True
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest().startswith(sha256)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _reason(error: OSError) -> str:
    """Return what went wrong, without the objects in requests' messages."""
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"the server answers {answer.status_code} {answer.reason}"
    kinds = {
        "ConnectTimeout": "no answer, is the network up?",
        "ConnectionError": "no connection, is the network up?",
        "ReadTimeout": f"the server has been silent for {SILENT_SECONDS} s",
        "ChunkedEncodingError": "the connection broke off",
    }
    return kinds.get(type(error).__name__, str(error))
