"""One thread computes for all: latest frames alone, the last request of each, a bounded queue."""

import asyncio
import threading

import pytest

from cnn_jax import UsageError
from cnn_jax.playground import worker as workers
from cnn_jax.playground.worker import Busy, Frame, Mailbox, Worker


@pytest.fixture
def worker():
    made = Worker(most_waiting=2)
    yield made
    made.end()


class Gate:
    """Work that waits until it is let through, and then ends; `begun` tells when it has begun."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, show):
        self.begun.set()
        while not self.go.wait(0.01):
            show(lambda: Frame(text="at the gate"))
        return Frame(text="through")


def submit(worker, client, work):
    return worker.submit(client, work, Mailbox(asyncio.get_running_loop()))


async def last_of(job):
    while not (frame := await asyncio.wait_for(job.mailbox.take(), 20)).end:
        pass
    return frame


def test_a_slow_reader_gets_the_latest_frame_alone(worker, monkeypatch):
    monkeypatch.setattr(workers, "FRAME_EVERY", 0.0)

    def work(show):
        for step in range(1000):
            show(lambda step=step: Frame(step=step))
        return Frame(step=1000)

    async def read():
        job = submit(worker, "reader", work)
        while not worker.idle():
            await asyncio.sleep(0.01)
        return await asyncio.wait_for(job.mailbox.take(), 20)

    frame = asyncio.run(read())
    assert (frame.step, frame.end) == (1000, True)


def test_frames_that_nobody_could_see_are_not_even_made(worker):
    made = []

    def work(show):
        for step in range(100):
            show(lambda step=step: made.append(step) or Frame())
        return Frame()

    async def read():
        return await last_of(submit(worker, "reader", work))

    asyncio.run(read())
    assert len(made) < 50


def test_a_clients_second_request_replaces_its_first(worker):
    async def ask():
        first, second = Gate(), Gate()
        old = submit(worker, "tab", first)
        await asyncio.to_thread(first.begun.wait, 20)
        second.go.set()
        new = submit(worker, "tab", second)
        assert (await last_of(new)).text == "through"
        assert old.cancelled()
        assert not first.go.is_set()

    asyncio.run(ask())


def test_a_request_that_left_while_it_waited_never_begins(worker):
    async def ask():
        gate, never, after = Gate(), Gate(), Gate()
        submit(worker, "first", gate)
        submit(worker, "second", never).cancel()
        after.go.set()
        last = submit(worker, "third", after)
        gate.go.set()
        await last_of(last)
        assert not never.begun.is_set()

    asyncio.run(ask())


def test_no_more_wait_than_may(worker):
    async def ask():
        gate = Gate()
        submit(worker, "first", gate)
        await asyncio.to_thread(gate.begun.wait, 20)
        for client in ("second", "third"):
            submit(worker, client, gate)
        with pytest.raises(Busy):
            submit(worker, "fourth", gate)
        gate.go.set()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "message"),
    [(UsageError("no such\n layer"), "no such layer"), (KeyError("x"), "KeyError: 'x'")],
)
def test_an_error_is_the_last_frame_and_the_thread_goes_on(worker, error, message):
    def fail(show):
        raise error

    async def ask():
        assert (await last_of(submit(worker, "one", fail))).error == message
        gate = Gate()
        gate.go.set()
        assert (await last_of(submit(worker, "other", gate))).text == "through"

    asyncio.run(ask())


def test_long_work_gives_way_to_what_waits(worker):
    async def ask():
        inner = Gate()
        inner.go.set()
        waits = threading.Event()

        def long(show):
            waits.wait(20)
            worker.give_way()
            assert inner.begun.is_set()
            return Frame(text="the long one")

        outer = submit(worker, "long", long)
        other = submit(worker, "short", inner)
        waits.set()
        assert (await last_of(other)).text == "through"
        assert (await last_of(outer)).text == "the long one"

    asyncio.run(ask())
