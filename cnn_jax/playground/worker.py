"""One thread that computes for many readers, and the mailbox through which each sees its work.

A mailbox holds the latest frame alone: a slow reader loses frames, and the server no memory. Work
that nobody waits for any more ends at its next step.
"""

import asyncio
import collections
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cnn_jax.errors import UsageError

# the time between two frames, in seconds: more than that nobody sees
FRAME_EVERY = 0.05
BEGUN = "at work; what is asked for the first time is compiled first, which takes some seconds"


class Frame(NamedTuple):
    """What is shown of a piece of work at one moment.

    step, steps: how far it is, of how many; None where nobody knows.
    numbers: by name, for curves.  classes: the likeliest, each `name, index, probability`.
    pictures: what is seen.  text: a line on it.
    series: whole curves, name -> points (step, value).
    end: nothing follows.  error: why it ended early.
    """

    step: int | None = None
    steps: int | None = None
    numbers: dict[str, float] = {}  # noqa: RUF012, never written to
    classes: list[dict[str, Any]] = []  # noqa: RUF012
    pictures: tuple[Any, ...] = ()
    text: str = ""
    series: dict[str, list] = {}  # noqa: RUF012
    end: bool = False
    error: str = ""


class Stopped(Exception):
    """Nobody waits for this work any more."""


Show = Callable[
    [Callable[[], Frame]], None
]  # show(make): of the frames that it makes some are seen
Work = Callable[[Show], Frame]  # work(show) -> the last frame; show raises Stopped


class Mailbox:
    """The latest frame of one piece of work: put by the thread that computes, taken by a reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop, self._arrived, self._frame = loop, asyncio.Event(), None

    def put(self, frame: Frame) -> None:
        """Let this be the latest frame."""
        self._frame = frame
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the server has ended
            raise Stopped from None

    async def take(self) -> Frame:
        """Wait for a frame that was not taken yet."""
        while self._frame is None:
            self._arrived.clear()
            await self._arrived.wait()
        frame, self._frame = self._frame, None
        return frame


class Job:
    """A piece of work of one client: waiting, running, or cancelled."""

    def __init__(self, work: Work, mailbox: Mailbox):
        self.work, self.mailbox = work, mailbox
        self._cancelled, self._shown = threading.Event(), -FRAME_EVERY

    def cancel(self) -> None:
        """Let it end at its next step, or never begin."""
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self._cancelled.is_set()

    def show(self, make: Callable[[], Frame]) -> None:
        """Put the frame that this makes into the mailbox, unless another was just put there.

        Raises:
          Stopped: the work was cancelled.
        """
        if self.cancelled():
            raise Stopped
        if time.monotonic() - self._shown >= FRAME_EVERY:
            self.mailbox.put(make())
            self._shown = time.monotonic()  # what making it takes is no part of the pause

    def run(self) -> None:
        """Do the work, and let its last frame say how it ended."""
        try:
            if not self.cancelled():
                self.mailbox.put(Frame(text=BEGUN))
                self.mailbox.put(self.work(self.show)._replace(end=True))
        except Stopped:
            pass
        except UsageError as error:
            self._fail(" ".join(str(error).split()))
        except Exception as error:
            logging.exception("playground")
            self._fail(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _fail(self, why: str) -> None:
        with contextlib.suppress(Stopped):
            self.mailbox.put(Frame(end=True, error=why))


class Busy(Exception):
    """Too much waits already."""


class Worker:
    """A thread that does the clients' work, one piece after the other.

    Args:
      most_waiting: pieces of work that may wait; more are refused.
    """

    def __init__(self, most_waiting: int = 8):
        self._most, self._jobs, self._waiting = most_waiting, {}, collections.deque()
        self._changed, self._ended, self._busy = threading.Condition(), False, 0
        self._thread = threading.Thread(target=self._run, name="playground", daemon=True)
        self._thread.start()

    def submit(self, client: str, work: Work, mailbox: Mailbox) -> Job:
        """Return the job that will do the work; a former one of the client is cancelled.

        Raises:
          Busy: too many wait.
        """
        with self._changed:
            if client in self._jobs:
                self._jobs[client].cancel()
            waiting = [job for job in self._waiting if not job.cancelled()]
            if self._ended or len(waiting) >= self._most:
                raise Busy
            job = Job(work, mailbox)
            self._jobs = {c: j for c, j in self._jobs.items() if not j.cancelled()} | {client: job}
            self._waiting = collections.deque([*waiting, job])
            self._changed.notify()
        return job

    def give_way(self, seconds: float = 0.0) -> None:
        """Do what waits, called by work that takes long from within; wait for some so long."""
        while job := self._next(seconds):
            job.run()
            seconds = 0.0
            with self._changed:
                self._busy -= 1

    def idle(self) -> bool:
        """Return whether nothing is computed, or waits."""
        with self._changed:
            return not self._waiting and not self._busy

    def end(self, seconds: float = 10.0) -> None:
        """Cancel everything and wait for the thread."""
        with self._changed:
            self._ended = True
            for job in self._jobs.values():
                job.cancel()
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._ended:
            self.give_way(3600.0)

    def _next(self, seconds: float) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, seconds)
            if not self._waiting or self._ended:
                return None
            self._busy += 1
            return self._waiting.popleft()
