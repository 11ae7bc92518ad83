"""Processes of one run that watch each other, so that none waits for ever for one that is gone.

A process that is killed, throws or hangs leaves the others inside a collective, which tells nothing
and may never return. So a thread of each process keeps a connection to that of process 0. Every
second it says how far its process is; a connection that breaks, a silence, or a process that stays
behind while the others wait for it ends all of them, with one line that names it.
"""

import ctypes
import dataclasses
import itertools
import json
import os
import secrets
import selectors
import signal
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax._src import distributed

from cnn_jax.errors import UsageError

# The first time of a phase compiles or reads, and may take so many times as long.
PATIENCE = 20
END, COMPILATION = "end", "compilation"
_BEAT = 1.0  # seconds between two messages
_DRAIN = 0.5  # seconds in which the last messages are read before a process ends
_CONNECT = 20.0
_COMPARED = 30.0  # seconds over which the processes' input is compared
_PORT = "cnn_jax/peers/port"


@dataclasses.dataclass
class Status:
    """How far a process is.

    count: of the phases that it began; all processes begin the same ones.  first: whether it had
    not been in this phase before, or compiles.  waited: seconds in all spent on its input.
    """

    phase: str = "start"
    step: int = 0
    count: int = 0
    first: bool = True
    waited: float = 0.0


@dataclasses.dataclass
class Member:
    """A process as another one knows it: when it was heard of, and when it last went on."""

    name: str
    heard: float
    moved: float
    status: Status = dataclasses.field(default_factory=Status)
    compared: tuple[int, float] = (0, 0.0)


_status = Status()
_phases: set[str] = set()
_began = time.monotonic()
_ending = threading.Event()  # the main thread ends by itself
_news: list[str] = []
_told = threading.Event()
_meetings = itertools.count()
_send: Callable[[dict[str, Any]], None] | None = None


def at(phase: str, step: int) -> None:
    """Tell the others what this process is about to do: the same phases in all of them."""
    global _status, _began
    now = time.monotonic()
    waited = _status.waited + (now - _began if _status.phase == "input" else 0.0)
    _began = now
    first = phase not in _phases or phase == COMPILATION
    _status = Status(phase, step, _status.count + 1, first, waited)
    _phases.add(phase)


def meet() -> None:
    """Wait until all processes are here, before their first collective, which waits for 30 s."""
    client = distributed.global_state.client
    if client is not None:
        client.wait_at_barrier(f"cnn_jax/meet/{next(_meetings)}", 3600 * 1000)


def watching() -> bool:
    """Return whether this process is watched, and watches."""
    return _send is not None


def watch(
    index: int,
    count: int,
    host: str,
    store: Any,
    timeout: float,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Begin to watch the other processes; if one is lost, this one ends with status 1.

    Args:
      index, count: of this process and of all.
      host: where process 0 is reached.
      store: the distributed runtime's client, by which process 0 tells its port.
      timeout: seconds of silence, or of being waited for, after which a process is lost.
      say: is told of a slow process, and what broke off.
    """
    global _send
    # JAX aborts where process 0 is gone, perhaps before it is named here: the handler lets it sleep
    # for so many seconds as the signal's number, six
    c = ctypes.CDLL(None)
    c.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    c.signal(signal.SIGABRT, ctypes.cast(c.sleep, ctypes.c_void_p))
    name = f"process {index} of {count} ({socket.gethostname()}, pid {os.getpid()})"
    try:
        if index == 0:
            listener = socket.create_server(("", 0), backlog=count)
            secret = secrets.token_hex(16)  # whatever else connects to the port is turned away
            store.key_value_set(_PORT, f"{listener.getsockname()[1]} {secret}")
            _send = _lead(listener, secret, name, timeout, say)
        else:
            port, secret = store.blocking_key_value_get(_PORT, int(1000 * _CONNECT)).split()
            link = _Link(socket.create_connection((host, int(port)), _CONNECT))
            link.send({"secret": secret, "process": index, "name": name})
            _send = _follow(link, f"process 0 of {count} ({host})", timeout, say)
    except (OSError, RuntimeError) as error:
        say(f"{name} cannot watch the others, which end later than they could: {error}")


def fail(error: BaseException, deliberate: bool) -> str | None:
    """Tell the others that this process fails; return what line it should end with instead.

    Where another process is lost, this one's error is but what follows from it.

    Args:
      deliberate: whether the error is surely its own.
    """
    _ending.set()
    if _send is None:
        return None
    if not deliberate and _told.wait(2 * _BEAT):
        return _news[0]
    text = " ".join(str(error).split())
    kind = "" if deliberate else f"{type(error).__name__}: "
    failed = {"failed": f"{kind}{text}"[:300], "again": not isinstance(error, UsageError)}
    _send(failed | {"status": dataclasses.asdict(_status)})
    time.sleep(_DRAIN)
    return None


def end_by_themselves() -> None:
    """Watch no longer: all processes are about to fail for a reason that each knows."""
    _ending.set()


def leave(shut_down: Callable[[], None]) -> None:
    """End together: shut_down waits for all, and who is gone after it is not missed."""
    at(END, _status.step)
    if _send is not None:
        _send({"status": dataclasses.asdict(_status)})
    shut_down()
    _ending.set()


def behind(members: Mapping[int, Member], now: float, timeout: float) -> tuple[int, float] | None:
    """Return the process that the others wait for, and since when, if for longer than allowed.

    It began fewer phases than another and has not gone on; of several the one that is furthest
    behind. Who has ended waits for nobody.
    """
    there = {index: each for index, each in members.items() if each.status.phase != END}
    furthest = max((member.status.count for member in there.values()), default=0)
    late = []
    for index, member in there.items():
        status = member.status
        allowed = timeout * (PATIENCE if status.first else 1)
        if status.count < furthest and now - member.moved > allowed:
            late.append((status.count, index, now - member.moved))
    if not late:
        return None
    _, index, seconds = min(late)
    return index, seconds


def slow(members: Mapping[int, Member], seconds: float) -> tuple[int, str] | None:
    """Return the process whose input holds the others up, and by how much, since last compared.

    Args:
      seconds: since then.
    """
    shares, steps = {}, []
    for index, member in members.items():
        step, waited = member.compared
        made = member.status.step - step
        if made < 2:
            return None
        shares[index] = (member.status.waited - waited) / made
        steps.append(made)
    if len(shares) < 2:
        return None
    slowest = max(shares, key=shares.__getitem__)
    others = statistics.median(share for index, share in shares.items() if index != slowest)
    step = seconds / min(steps)
    if shares[slowest] < 2 * others or shares[slowest] - others < 0.2 * step:
        return None
    return slowest, (
        f"its input takes {shares[slowest]:.2f} s of a step's {step:.2f} s, that of the others "
        f"{others:.2f} s"
    )


def _lost(name: str, how: str, status: Status, again: bool = True) -> str:
    """The line on a process that is lost; again: whether the same command would go on."""
    when = f", last heard of at step {status.step}" if status.count else ""
    more = ", the same command goes on from its last checkpoint" if again else ""
    return f"{name} {how}{when}; the run ends{more}"


def _end(line: str, say: Callable[[str], None]) -> None:
    """End this process, unless its main thread is about to."""
    _news.append(line)
    _told.set()
    if not _ending.is_set():
        say(f"error: {line}")
        sys.stdout.flush()
        os._exit(1)


class _Link:
    """A connection of JSON lines."""

    def __init__(self, link: socket.socket):
        self.socket, self._rest, self._lock = link, b"", threading.Lock()
        link.settimeout(5)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Mapping[str, Any]) -> None:
        try:
            with self._lock:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # who receives finds the connection broken

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the messages that are there; None at the connection's end, or of what is none."""
        try:
            data = self.socket.recv(65536)
            *lines, self._rest = (self._rest + data).split(b"\n")
            messages = [json.loads(line) for line in lines]
        except (OSError, ValueError):
            return None
        if not data or not all(isinstance(message, dict) for message in messages):
            return None
        return messages


def _lead(
    listener: socket.socket, secret: str, name: str, timeout: float, say: Callable[[str], None]
) -> Callable[[dict[str, Any]], None]:
    """Start the thread of process 0, which hears all others and judges; return what it sends by."""
    now = time.monotonic()
    members = {0: Member(name, now, now)}
    links: dict[int, _Link] = {}

    def tell(message: Mapping[str, Any]) -> None:
        for link in list(links.values()):
            link.send(message)

    def lose(line: str) -> None:
        tell({"lost": line})
        time.sleep(_DRAIN)  # an end with unread messages would take the line back
        _end(line, say)

    def send(message: dict[str, Any]) -> None:
        if "failed" in message:
            how = f"failed ({message['failed']})"
            tell({"lost": _lost(name, how, _status, message["again"])})
        else:
            tell(message)

    def hear(index: int, messages: Sequence[Mapping[str, Any]] | None) -> None:
        member = members[index]
        if messages is None:
            links.pop(index)
            if member.status.phase != END:
                lose(_lost(member.name, "died", member.status))
            return
        for message in messages:
            member.heard = time.monotonic()
            _moved(member, Status(**message["status"]))
            if "failed" in message:
                how = f"failed ({message['failed']})"
                lose(_lost(member.name, how, member.status, message["again"]))

    def run() -> None:
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ)
        beat = compared = last = time.monotonic()
        while not _ending.is_set():
            for key, _ in selector.select(_BEAT / 4):
                if key.fileobj is listener:
                    link = _Link(listener.accept()[0])
                    hello = link.receive()
                    if not hello or hello[0].get("secret") != secret:
                        link.socket.close()
                        continue
                    index, there = hello[0]["process"], time.monotonic()
                    members[index] = Member(hello[0]["name"], there, there)
                    links[index] = link
                    selector.register(link.socket, selectors.EVENT_READ, index)
                    hear(index, hello[1:])
                    continue
                messages = links[key.data].receive()
                if messages is None:
                    selector.unregister(key.fileobj)
                hear(key.data, messages)
            now = time.monotonic()
            if now - last > timeout / 4:  # it was this process that stood still
                for member in members.values():
                    member.heard = member.moved = now
            last = now
            if now - beat < _BEAT:
                continue
            beat = members[0].heard = now
            _moved(members[0], _status)
            tell({"status": dataclasses.asdict(_status)})
            for index, member in members.items():
                if index in links and now - member.heard > timeout:
                    how = f"has not answered for {now - member.heard:.0f} s"
                    lose(_lost(member.name, how, member.status))
            if late := behind(members, now, timeout):
                member = members[late[0]]
                how = f"kept the others waiting for {late[1]:.0f} s by its {member.status.phase}"
                lose(_lost(member.name, how, member.status))
            if now - compared > _COMPARED:
                if found := slow(members, now - compared):
                    say(f"{members[found[0]].name} is slow: {found[1]}")
                for member in members.values():
                    member.compared = member.status.step, member.status.waited
                compared = now

    threading.Thread(target=run, name="peers", daemon=True).start()
    return send


def _moved(member: Member, status: Status) -> None:
    if status.count != member.status.count:
        member.moved = time.monotonic()
    member.status = status


def _follow(
    link: _Link, leader: str, timeout: float, say: Callable[[str], None]
) -> Callable[[dict[str, Any]], None]:
    """Start the thread of another process, which hears process 0; return what it sends by."""

    def run() -> None:
        status = Status()
        beat, last = 0.0, time.monotonic()
        heard = last
        selector = selectors.DefaultSelector()
        selector.register(link.socket, selectors.EVENT_READ)
        while not _ending.is_set():
            if selector.select(_BEAT / 4):
                messages = link.receive()
                if messages is None:
                    if status.phase != END:
                        _end(_lost(leader, "died", status), say)
                    return
                heard = time.monotonic()
                for message in messages:
                    if "lost" in message:
                        _end(message["lost"], say)
                        return
                    status = Status(**message["status"])
            now = time.monotonic()
            if now - last > timeout / 4:  # it was this process that stood still
                heard = now
            last = now
            if now - heard > timeout:
                _end(_lost(leader, f"has not answered for {now - heard:.0f} s", status), say)
                return
            if now - beat > _BEAT:
                beat = now
                link.send({"status": dataclasses.asdict(_status)})

    threading.Thread(target=run, name="peers", daemon=True).start()
    return link.send
