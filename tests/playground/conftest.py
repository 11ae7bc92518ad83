"""A tiny network with two photographs, and a server of it on loopback."""

import contextlib
import http.client
import json
import threading
import time

import jax
import numpy as np
import pytest
import uvicorn

from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.models import create_model
from cnn_jax.playground import computations, server
from cnn_jax.trained import Trained

NAMES = ("circle", "square", "star")  # of four classes, one has no name
TOKEN = "the-token"


@pytest.fixture(scope="session")
def network():
    model = create_model("tests.playground.tiny:tiny", 4)
    variables = model.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32))
    expects = (Preprocessing(16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Trained(model, variables, *expects, NAMES, {"weights": "none"}, None)


@pytest.fixture
def subject(network):
    pixels = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    return computations.Subject(
        network, [computations.Photograph(f"photo {i}", p) for i, p in enumerate(pixels)]
    )


class Served:
    """A server in a thread; `request` asks it as a page does."""

    def __init__(self, playground, port):
        self.playground, self.port = playground, port

    def request(self, method, path, body=None, **headers):
        """Return the answer, not read yet, and the connection."""
        given = {"X-CNN-JAX-Token": TOKEN} | {k.replace("_", "-"): v for k, v in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if isinstance(body, dict):
            body = json.dumps({"client": "a test's tab"} | body)
        given = {name: value for name, value in given.items() if value is not None}
        connection.request(method, path, body, given)
        return connection.getresponse(), connection

    def text(self, method, path, body=None, **headers):
        """Return the status and the text of the answer."""
        answer, connection = self.request(method, path, body, **headers)
        with contextlib.closing(connection):
            return answer.status, answer.read().decode()

    def frames(self, body, path="/api/run"):
        """Yield the frames of a stream; leaving it closes the connection."""
        answer, connection = self.request("POST", path, body)
        with contextlib.closing(connection), contextlib.closing(answer):
            assert answer.status == 200, answer.read()
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])


@pytest.fixture
def serve():
    """serve(playground, host=...) -> Served, ended with the test."""
    with contextlib.ExitStack() as stack:

        def begin(playground, host="127.0.0.1", render=lambda token: f"a page of {token}"):
            listener = server.listen("127.0.0.1", None, first=18700)
            app = server.application(playground, render, TOKEN, host)
            config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
            running = uvicorn.Server(config)
            thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
            thread.start()

            def end():
                running.should_exit = True
                thread.join(30)
                assert not thread.is_alive()

            stack.callback(end)
            until(lambda: running.started)
            return Served(playground, listener.getsockname()[1])

        yield begin


def until(condition, seconds=30.0):
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to it"
        time.sleep(0.02)
