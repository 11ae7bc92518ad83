"""The playground over loopback: who may ask, what may be sent, and what ends when a reader goes."""

import io
import json
import os
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from cnn_jax import UsageError
from cnn_jax.playground import computations, server
from cnn_jax.playground.worker import Frame
from tests.playground.conftest import TOKEN, until


@pytest.fixture
def served(serve, subject):
    return serve(server.Playground({"tiny": lambda: subject}))


def encoded(size, kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", size, "green").save(stream, kind)
    return stream.getvalue()


def upload(served, body, **headers):
    return served.text("POST", "/api/photographs?network=tiny&name=green.png", body, **headers)


# --- who may ask ------------------------------------------------------------------------------


def test_on_loopback_the_page_opens_without_a_token_and_holds_it(served):
    assert served.text("GET", "/", X_CNN_JAX_Token=None) == (200, f"a page of {TOKEN}")


def test_a_page_may_load_nothing_from_elsewhere(served):
    answer, connection = served.request("GET", "/")
    policy = answer.headers["content-security-policy"]
    connection.close()
    assert "default-src 'none'" in policy
    assert "http" not in policy


@pytest.mark.parametrize("token", [None, "", "another", "the-token2", "é"])
def test_without_the_token_nothing_is_answered(served, token):
    for method, path in [("GET", "/api/subject"), ("POST", "/api/run"), ("POST", "/api/train")]:
        given = token if token is None else token.encode()
        status, text = served.text(method, path, b"{}", X_CNN_JAX_Token=given)
        assert status == 403
        assert text.startswith("error: the token")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "8.8.8.8", "", "[::1"]
)
def test_a_name_that_was_rebound_to_loopback_is_refused(served, host):
    status, text = served.text("GET", "/", Host=host)
    assert (status, text.count("\n")) == (403, 1)
    assert text.startswith("error: this is no server of")


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1", "[::1]:8700", "LOCALHOST"])
def test_loopback_by_any_name_and_forwarded_port_is_served(served, host):
    assert served.text("GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1"])
def test_another_sites_page_may_post_nothing(served, origin):
    status, text = served.text("POST", "/api/run", {"task": "classify"}, Origin=origin)
    assert (status, text) == (
        403,
        "error: another site's page asked; only the playground's own may\n",
    )


def test_the_pages_own_origin_is_served(served):
    own = f"http://127.0.0.1:{served.port}"
    assert served.text("POST", "/api/pause", {}, Origin=own)[0] == 400  # it got there


def test_beyond_loopback_the_page_wants_the_token_too(serve, subject):
    served = serve(server.Playground({"tiny": lambda: subject}), host="0.0.0.0")
    for path in ("/", "/?token=", "/?token=wrong"):
        status, text = served.text("GET", path)
        assert status == 403
        assert text.startswith("error: open the address")
    assert served.text("GET", f"/?token={TOKEN}")[0] == 200
    assert served.text("GET", f"/?token={TOKEN}", Host="192.0.2.7:8700")[0] == 200  # an address
    assert served.text("GET", f"/?token={TOKEN}", Host="evil.example")[0] == 403


# --- what is sent -----------------------------------------------------------------------------


def test_an_uploaded_photograph_is_looked_at_and_never_written(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, text = upload(served, encoded((300, 200), "JPEG"))
    assert status == 200
    photograph = json.loads(text)
    assert photograph["src"].startswith("data:image/png;base64,")
    *_, last = served.frames({"task": "classify", "photograph": photograph["id"]})
    assert last["end"]
    assert len(last["classes"]) == 4
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not an image"),
        (b"no image at all", "not an image"),
        (encoded((64, 64))[:80], "not a readable image"),
        (encoded((9000, 5000)), "9000x5000 pixels, more than 40 million"),
    ],
)
def test_a_broken_or_huge_image_is_one_line(served, body, message):
    status, text = upload(served, body)
    assert status == 400
    assert text.startswith("error: ")
    assert message in text
    assert text.count("\n") == 1


def test_a_file_of_too_many_bytes_is_not_read(served, monkeypatch):
    monkeypatch.setattr(server, "MOST_BYTES", 1000)
    assert upload(served, bytes(1001))[0] == 413
    parts = (bytes(400) for _ in range(10))  # no length is told
    status, text = upload(served, parts)
    assert status == 413
    assert text.startswith("error: the file has more than")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"not json", "no JSON"),
        (b"[1]", "no table"),
        (b"[" * 20000, "no JSON"),
        (b"{}", "does not say whose"),
        (b'{"client": 5}', "does not say whose"),
        (b'{"client": "tab 1234", "task": "classify", "network": "x"}', "no network 'x'"),
        (b'{"client": "a test tab", "task": ["x"]}', "unknown task"),
        (bytes(70000), "more than"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_line(served, body, message):
    status, text = served.text("POST", "/api/run", body)
    assert status in (400, 413)
    assert message in text
    assert text.count("\n") == 1


def test_what_is_not_there_is_told(served):
    for path in ("/api/train", "/api/watch", "/api/pause"):
        status, text = served.text("POST", path, {})
        assert status == 400
        assert text.startswith("error: no run")
    assert served.text("GET", "/nothing")[0] == 404


def test_the_page_is_told_all_that_it_offers(served):
    _, text = served.text("GET", "/api/subject?network=")
    told = json.loads(text)
    assert told["classes"] == ["circle", "square", "star", "3"]
    assert [each["path"] for each in told["layers"]][-1] == "head"
    assert {"saliency", "grad_cam", "rise"} <= {each["name"] for each in told["methods"]}
    assert [each["id"] for each in told["photographs"]] == ["sample0", "sample1"]


# --- streams ----------------------------------------------------------------------------------


def test_a_stream_has_frames_and_an_end(served):
    request = {"task": "attack", "photograph": "sample0", "steps": 3}
    *frames, last = served.frames(request)
    assert last["end"]
    assert not last["error"]
    assert not any(frame["end"] for frame in frames)
    assert last["pictures"][1]["src"].startswith("data:image/png;base64,")


def test_an_error_within_the_work_is_the_last_frame(served):
    *_, last = served.frames({"task": "explain", "photograph": "sample0", "method": "nothing"})
    assert "unknown method" in last["error"]


@pytest.fixture
def endless(monkeypatch):
    """A task that shows frames until it is stopped; the event says that it was."""
    stopped = threading.Event()

    def task(subject, options, show):
        big = computations.Picture("noise", "noise", np.random.default_rng(0).integers(
            0, 255, (int(options.get("side", 8)),) * 2 + (3,), np.uint8))  # fmt: skip
        step = 0
        try:
            while True:
                step += 1
                show(lambda step=step: Frame(step=step, pictures=(big,)))
                time.sleep(0.001)
        finally:
            stopped.set()

    monkeypatch.setitem(computations.TASKS, "endless", task)
    return stopped


def test_closing_the_tab_stops_the_work(served, endless):
    frames = served.frames({"task": "endless"})
    while next(frames)["step"] is None:
        pass
    assert not endless.is_set()
    frames.close()
    assert endless.wait(20)
    until(lambda: served.playground.streams == 0)


def test_a_second_request_of_a_tab_ends_its_first(served, endless):
    frames = served.frames({"task": "endless"})
    while next(frames)["step"] is None:
        pass
    *_, last = served.frames({"task": "classify", "photograph": "sample0"})
    assert last["end"]
    assert endless.is_set()
    frames.close()


def test_a_slow_reader_loses_frames_and_the_server_no_memory(served, endless):
    """A frame has 2 MB; while it is not read, hundreds are shown, and one or two wait."""
    frames = served.frames({"task": "endless", "side": 800})
    while (first := next(frames))["step"] is None:
        pass
    time.sleep(3)
    steps = [next(frames)["step"] for _ in range(6)]
    gaps = np.diff([first["step"], *steps])
    assert gaps.max() > 500  # what was shown meanwhile is lost, not kept
    frames.close()
    assert endless.wait(20)


def test_readers_are_bounded(served, endless, monkeypatch):
    monkeypatch.setattr(server, "MOST_STREAMS", 1)
    frames = served.frames({"task": "endless"})
    next(frames)
    request = {"task": "classify", "client": "another tab", "photograph": "sample0"}
    status, text = served.text("POST", "/api/run", request)
    assert (status, text) == (503, "error: others are being served; try again soon\n")
    frames.close()


def test_a_run_is_watched_as_its_log_grows(serve, subject, tmp_path):
    log = tmp_path / "metrics.jsonl"
    served = serve(server.Playground({"tiny": lambda: subject}, watched=tmp_path))
    frames = served.frames({}, "/api/watch")
    assert next(frames)["text"] == "nothing is logged yet"
    log.write_text('{"step": 10, "loss": 2.0}\n{"step": 20, "loss": 1.5}\n{"step": 30, "lo')
    assert next(frames)["series"] == {"loss": [[10, 2.0], [20, 1.5]]}
    with log.open("a") as file:
        file.write('ss": NaN}\n{"step": 30, "eval_top1_error": 0.25}\n')
    assert next(frames)["series"] == {
        "loss": [[10, 2.0], [20, 1.5], [30, None]],
        "eval_top1_error": [[30, 0.25]],
    }
    frames.close()


def test_a_long_log_is_thinned(tmp_path):
    lines = (json.dumps({"step": i, "loss": 1 / (i + 1)}) for i in range(5000))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    points = server._log_frame(tmp_path).series["loss"]
    assert len(points) == server.MOST_POINTS
    assert (points[0][0], points[-1][0]) == (0, 4999)


# --- where it listens -------------------------------------------------------------------------


def test_a_taken_port_is_told_and_without_one_the_next_is_taken():
    first = server.listen("127.0.0.1", None, first=18800)
    port = first.getsockname()[1]
    with first, server.listen("127.0.0.1", None, first=port) as second:
        assert second.getsockname()[1] > port
        with pytest.raises(UsageError, match=f"port {port} is taken; give another by --port"):
            server.listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_one_line():
    for host in ("192.0.2.7", "no.such.host.invalid"):
        with pytest.raises(UsageError, match=f"cannot listen on {host}"):
            server.listen(host, None)


def test_the_printed_address_has_the_token_beyond_loopback_alone():
    with server.listen("127.0.0.1", None, first=18850) as listener:
        port = listener.getsockname()[1]
        assert server.address(listener, "127.0.0.1", "abc") == f"http://127.0.0.1:{port}/"
        assert server.address(listener, "::1", "abc") == f"http://[::1]:{port}/"
        anywhere = f"http://{socket.gethostname()}:{port}/?token=abc"
        assert server.address(listener, "0.0.0.0", "abc") == anywhere
