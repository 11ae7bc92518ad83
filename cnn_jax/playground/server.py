"""The playground's routes: a page over loopback, and streams of what real JAX computes for it.

A request for work is a POST whose answer is a stream of server-sent events, a frame each; when the
reader goes, the work ends. Whatever is asked needs the token, that the page alone knows, a Host
that is this machine, and no Origin but the page's own: no other site reads or starts anything.
"""

import asyncio
import base64
import contextlib
import errno
import hmac
import io
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from cnn_jax.data import decoding
from cnn_jax.errors import UsageError
from cnn_jax.playground import computations
from cnn_jax.playground.training import Training
from cnn_jax.playground.worker import Busy, Frame, Mailbox, Work, Worker
from cnn_jax.training.log import read_log

TOKEN = "x-cnn-jax-token"  # header of whatever is asked by the page
MOST_BYTES = 20 * 2**20  # of an uploaded file
MOST_PIXELS = 40_000_000  # of an uploaded photograph
MOST_OPTIONS = 64 * 2**10  # bytes of a request's options
MOST_STREAMS = 32  # readers at a time
MOST_POINTS = 1000  # of a curve of a run that is watched
LOOK_EVERY = 0.5  # seconds between two looks at a run's log
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

# The page is one file: what it runs is inside of it, and it asks no host but this one.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self' data: blob:; "
    "worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Refused(Exception):
    """A request that is not served: its status, and a line that says why."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status, self.why = status, why


class Playground:
    """What is served: the networks by name, and the thread that computes.

    Args:
      networks: name -> a function that loads the subject, called when it is first asked for.
      training: the run that the page may start; None: none.
      watched: folder of a run whose numbers are shown as they come; None: of none.
    """

    def __init__(
        self,
        networks: Mapping[str, Callable[[], computations.Subject]],
        training: Training | None = None,
        watched: Path | None = None,
    ):
        self.networks, self.training, self.watched = dict(networks), training, watched
        self.worker, self.streams = Worker(), 0
        self._loaded: dict[str, computations.Subject] = {}
        self._loading, self.decoding = threading.Lock(), threading.Lock()

    def subject(self, name: str, anew: bool = False) -> computations.Subject:
        """Return the subject of this name, "" for the first, loaded when it is first asked for.

        Args:
          anew: load it now, as a run in training has new checkpoints.

        Raises:
          UsageError: there is none, or it cannot be loaded.
        """
        name = name or next(iter(self.networks))
        if name not in self.networks:
            raise UsageError(f"there is no network {name[:40]!r} here; reload the page")
        with self._loading:
            if anew or name not in self._loaded:
                self._loaded[name] = self.networks[name]()
            return self._loaded[name]


def application(
    playground: Playground, render: Callable[[str], str], token: str, host: str = "127.0.0.1"
) -> Callable:
    """Return the application.

    Args:
      render: token -> the page.
      token: without it nothing is answered, on loopback but for the page itself.
      host: the address that is listened on; beyond loopback the page needs the token as well, as
        in /?token=TOKEN.
    """

    async def page(request: Request):
        if not is_loopback(host) and not _same(request.query_params.get("token", ""), token):
            raise _Refused(403, "open the address that the playground printed, with its token")
        text = await run_in_threadpool(render, token)
        return HTMLResponse(text)

    async def subject(request: Request):
        name, anew = request.query_params.get("network", ""), "anew" in request.query_params
        found = await run_in_threadpool(playground.subject, name, anew)
        return JSONResponse(await run_in_threadpool(_description, playground, name, found))

    async def upload(request: Request):
        encoded = await _body(request, MOST_BYTES, "the file")
        found = await run_in_threadpool(playground.subject, request.query_params.get("network", ""))
        name = request.query_params.get("name", "")[:100] or "photograph"

        def add() -> str:
            with playground.decoding:  # one at a time, for their memory
                channels = len(found.network.mean)
                return found.add(name, decoding.decode(encoded, channels, MOST_PIXELS))

        identifier = await run_in_threadpool(add)
        return JSONResponse(_photograph(identifier, found.photograph(identifier)))

    async def run(request: Request):
        options = await _options(request)
        client, task = _client(options), computations.task(options.get("task"))
        found = await run_in_threadpool(playground.subject, str(options.get("network", "")))
        return _stream(playground, client, lambda show: task(found, options, show))

    async def train(request: Request):
        options = await _options(request)
        if playground.training is None:
            raise UsageError("no run can be started here")
        seed = computations.integer(options, "seed", 0, 0, 2**31 - 1)
        begun = playground.training.begin(seed, playground.worker)
        return _stream(playground, f"{_client(options)} trains", begun)

    async def pause(request: Request):
        options = await _options(request)
        paused = options.get("paused") is True
        if playground.training is None or not playground.training.pause(paused):
            raise UsageError("no run is training; start one first")
        return JSONResponse({"paused": paused})

    async def watch(request: Request):
        if playground.watched is None:
            raise UsageError("no run is watched here; start the playground with --workdir")
        return _events(playground, _log_frames(playground.watched))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(playground.worker.end)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/api/subject", subject),
            Route("/api/photographs", upload, methods=["POST"]),
            Route("/api/run", run, methods=["POST"]),
            Route("/api/train", train, methods=["POST"]),
            Route("/api/pause", pause, methods=["POST"]),
            Route("/api/watch", watch, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers={
            _Refused: lambda request, error: _error(error.status, error.why),
            UsageError: lambda request, error: _error(400, str(error)),
            Busy: lambda request, error: _error(503, "others are being served; try again soon"),
            Exception: _broken,
        },
    )
    return _Guard(app, token, host)


class _Guard:
    """Lets those requests through to the application that come from its own page."""

    def __init__(self, app: Starlette, token: str, host: str):
        self.app, self.token, self.open = app, token, not is_loopback(host)
        self.names = {*_LOOPBACK, host.lower()}
        if self.open:
            self.names.add(socket.gethostname().lower())

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        why = self._refusal(scope["path"], headers)
        if why is not None:
            return await _error(403, why)(scope, receive, send)
        return await self.app(scope, receive, _with_headers(send))

    def _refusal(self, path: str, headers: Mapping[str, str]) -> str | None:
        host = headers.get("host", "")
        if not self._is_own(host):
            return f"this is no server of {host[:80] or 'a nameless host'}; use its own address"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "another site's page asked; only the playground's own may"
        if path != "/" and not _same(headers.get(TOKEN, ""), self.token):
            return "the token is missing or an earlier one; reload the page"
        return None

    def _is_own(self, host: str) -> bool:
        """Return whether the Host names this machine. A rebound name does not; addresses cannot."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self.names or (self.open and _is_address(name))


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine reaches the address."""
    if host == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _with_headers(send: Callable) -> Callable:
    extra = {
        "content-security-policy": _POLICY,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }

    async def sending(message) -> None:
        if message["type"] == "http.response.start":
            pairs = [(name.encode(), value.encode()) for name, value in extra.items()]
            message["headers"] = [*message["headers"], *pairs]
        await send(message)

    return sending


def _broken(request: Request, error: Exception) -> PlainTextResponse:
    logging.error("%s", request.url.path, exc_info=error)
    return _error(500, f"{type(error).__name__}: {error}"[:300])


def _error(status: int, why: str) -> PlainTextResponse:
    return PlainTextResponse("error: " + " ".join(why.split()) + "\n", status)


async def _body(request: Request, most: int, what: str) -> bytes:
    """Return the request's body, of which no more is taken than may come."""
    too_much = _Refused(413, f"{what} has more than {most / 2**20:g} MiB; take a smaller one")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise too_much
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_much
        parts.append(part)
    return b"".join(parts)


async def _options(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await _body(request, MOST_OPTIONS, "the request"))
    except (ValueError, RecursionError):
        raise UsageError("the request is no JSON") from None
    if not isinstance(found, dict):
        raise UsageError("the request is no table of options")
    return found


def _client(options: Mapping[str, Any]) -> str:
    client = options.get("client")
    if not isinstance(client, str) or not 8 <= len(client) <= 64:
        raise UsageError("the request does not say whose it is; reload the page")
    return client


def _stream(playground: Playground, client: str, do: Work) -> StreamingResponse:
    """Return the stream of the frames of this work, which ends with its reader."""
    mailbox = Mailbox(asyncio.get_running_loop())
    _check_room(playground)
    job = playground.worker.submit(client, do, mailbox)

    async def frames() -> AsyncIterator[Frame]:
        try:
            yield Frame(text="waiting until what was asked for before is done")
            while not (frame := await mailbox.take()).end:
                yield frame
            yield frame
        finally:
            job.cancel()

    return _events(playground, frames())


def _check_room(playground: Playground) -> None:
    if playground.streams >= MOST_STREAMS:
        raise Busy


def _events(playground: Playground, frames: AsyncIterator[Frame]) -> StreamingResponse:
    """Return the frames as server-sent events."""
    _check_room(playground)

    async def events() -> AsyncIterator[bytes]:
        playground.streams += 1
        try:
            async for frame in frames:
                text = await run_in_threadpool(_as_json, frame)
                yield f"data: {text}\n\n".encode()
        finally:
            playground.streams -= 1
            await frames.aclose()

    return StreamingResponse(events(), media_type="text/event-stream")


async def _log_frames(workdir: Path) -> AsyncIterator[Frame]:
    """Yield the curves of a run whenever its log has grown."""
    size = -1
    while True:
        now = await run_in_threadpool(_log_size, workdir)
        if now != size:
            size = now
            yield await run_in_threadpool(_log_frame, workdir)
        await asyncio.sleep(LOOK_EVERY)


def _log_size(workdir: Path) -> int:
    try:
        return (workdir / "metrics.jsonl").stat().st_size
    except OSError:
        return 0


def _log_frame(workdir: Path) -> Frame:
    lines = read_log(workdir)
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    series = {}
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line]
        chosen = np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).round().astype(int)
        series[name] = [points[i] for i in chosen]
    last = lines[-1]["step"] if lines else None
    return Frame(step=last, series=series, text="" if lines else "nothing is logged yet")


def _as_json(frame: Frame) -> str:
    values = frame._asdict()
    values["pictures"] = [
        {"title": each.title, "alt": each.alt, "src": _address(each.pixels)}
        for each in frame.pictures
    ]
    values["numbers"] = {name: _number(value) for name, value in frame.numbers.items()}
    values["series"] = {
        name: [(step, _number(value)) for step, value in points]
        for name, points in frame.series.items()
    }
    return json.dumps(values, separators=(",", ":"))


def _number(value: float) -> float | None:
    """Return the number; None where JSON has none for it."""
    return value if np.isfinite(value) else None


def _address(pixels: np.ndarray) -> str:
    """Return a picture as a data address, without loss."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _photograph(identifier: str, photograph: computations.Photograph) -> dict[str, str]:
    pixels = computations.picture(photograph.name, photograph.name, photograph.pixels).pixels
    return {"id": identifier, "name": photograph.name, "src": _address(pixels)}


def _description(
    playground: Playground, name: str, subject: computations.Subject
) -> dict[str, Any]:
    return {
        "network": name or next(iter(playground.networks)),
        "networks": list(playground.networks),
        "watched": None if playground.watched is None else str(playground.watched),
        "trains": None if playground.training is None else playground.training.described(),
        "photographs": [_photograph(*each) for each in subject.samples.items()],
        **computations.described(subject),
    }


def listen(host: str, port: int | None, first: int = 8700, tries: int = 20) -> socket.socket:
    """Return a socket that listens on the port, or without one on the next free one.

    Raises:
      UsageError: the port is taken, or there is no such address here.
    """
    for candidate in range(first, first + tries) if port is None else [port]:
        try:
            family, *_, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                listener.listen(64)
            except OSError:
                listener.close()
                raise
        except (OSError, UnicodeError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                continue
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot listen on {host}, port {candidate}: {reason}") from None
        return listener
    if port is None:
        raise UsageError(f"no port of {first} to {first + tries - 1} is free; give one by --port")
    raise UsageError(f"port {port} is taken; give another by --port, or leave it out")


def address(listener: socket.socket, host: str, token: str) -> str:
    """Return what to open in a browser, beyond loopback with the token."""
    port = listener.getsockname()[1]
    if is_loopback(host):
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{port}/"
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/?token={token}"


def run(application: Callable, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; work that goes on then is ended, a run saved."""
    config = uvicorn.Config(
        application,
        access_log=False,
        log_level="critical",  # what goes wrong is logged by the application
        timeout_graceful_shutdown=1,
        ws="none",
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])
