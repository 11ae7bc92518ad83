"""Files of weights from the network: checked before they are used, kept in a cache.

The cache is `cnn_jax/weights` in $XDG_CACHE_HOME or ~/.cache. CNN_JAX_WEIGHTS names a folder that
holds such files already, which is only read, or the address of a mirror, both with the files under
their own names. CNN_JAX_OFFLINE=1 forbids the network.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import urllib.parse
from pathlib import Path

from cnn_jax.errors import UsageError

CONNECT_SECONDS, SILENT_SECONDS = 5, 30


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
    partial = folder / f".{name}.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.touch()
        _download(address, partial)
        _check(partial, address, sha256)
        partial.replace(file)
    except UsageError as error:
        raise UsageError(f"cannot get {name}: {error}; {remedy}") from None
    except OSError as error:  # requests' errors are too
        reason = error.strerror or _reason(error)
        raise UsageError(f"cannot get {name} from {address}: {reason}; {remedy}") from None
    finally:
        with contextlib.suppress(OSError):  # a folder that cannot be written holds none
            partial.unlink(missing_ok=True)
    return file


def _download(url: str, partial: Path) -> None:
    import pooch  # here, as it takes a tenth of a second
    import requests

    timeout = (CONNECT_SECONDS, SILENT_SECONDS)
    with requests.get(url, stream=True, timeout=timeout) as answer:  # what is at the other end
        answer.raise_for_status()
        size = int(answer.headers.get("content-length") or 0)
        kind = answer.headers.get("content-type", "")
    if "text/html" in kind:
        raise UsageError(f"{url} is a web page, not a file of weights")
    free = shutil.disk_usage(partial.parent).free
    if size > free:
        raise UsageError(f"{url} has {size / 2**30:.1f} GiB, and {free / 2**30:.1f} are free")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise UsageError(f"{url} has {size / 2**30:.0f} GiB, more than this machine's memory")
    pooch.HTTPDownloader(progressbar=True, timeout=timeout)(url, str(partial), None)


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
