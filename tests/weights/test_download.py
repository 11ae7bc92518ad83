"""Weights from the network: a server on loopback that misbehaves as servers and proxies do."""

import concurrent.futures
import errno
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from cnn_jax import UsageError
from cnn_jax.weights import download, pretrained

pytest.importorskip("pooch")

CONTENT = bytes(range(256)) * 64
SHA256 = hashlib.sha256(CONTENT).hexdigest()[:8]
NAME = f"net-{SHA256}.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path.partition("/")[2])
        if answer is None:
            self.send_error(404)
            return
        kind, claimed, content = answer
        time.sleep(self.server.pause)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start and self.server.resumes:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:])
            self.server.sent.append(len(CONTENT) - start)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(claimed))
        self.end_headers()
        self.wfile.write(content)
        self.server.sent.append(len(content))

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server whose answers are (content type, claimed length, content) by name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CNN_JAX_WEIGHTS", "CNN_JAX_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.answers, running.asked, running.sent = {}, [], []
        running.pause, running.resumes = 0, False
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        running.answers[NAME] = ("application/octet-stream", len(CONTENT), CONTENT)
        yield running
        running.shutdown()
        thread.join()


def left_over() -> list[str]:
    return sorted(file.name for file in download.cache().rglob("*") if file.is_file())


def test_a_file_is_downloaded_once(server):
    for _ in range(2):
        file = download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
        assert file.read_bytes() == CONTENT
    asked = len(server.asked)
    download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    assert len(server.asked) == asked
    assert left_over() == [NAME]


def test_a_damaged_file_in_the_cache_is_fetched_anew(server):
    file = download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    file.write_bytes(CONTENT[:100])
    assert download.fetch(f"{server.url}/{NAME}", sha256=SHA256).read_bytes() == CONTENT


BAD = {
    "cut off": (("application/octet-stream", len(CONTENT), CONTENT[:5000]), "broke off"),
    "other content": (("application/octet-stream", 3, b"abc"), "does not begin with"),
    "a proxy's page": (("text/html", 10, b"<html>Sign"), "is a web page"),
    "a page of another type": (("text/plain", 22, b"<!DOCTYPE html>\nSign i"), "is a web page"),
    "huge": (("application/octet-stream", 2**60, b""), "GiB"),
    "absent": (None, "404"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_the_file_is_refused_and_nothing_is_left(kind, server):
    server.answers[NAME], message = BAD[kind]
    with pytest.raises(UsageError, match=message) as error:
        download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    for told in (NAME, server.url, str(download.cache())):
        assert told in str(error.value)
    assert left_over() == ([f".{NAME}.part"] if kind == "cut off" else [])


@pytest.mark.parametrize("resumes", [True, False])
def test_a_download_that_broke_off_goes_on_where_it_was(server, resumes, monkeypatch):
    server.answers[NAME] = BAD["cut off"][0]
    server.resumes = resumes
    if resumes:
        assert download.fetch(f"{server.url}/{NAME}", sha256=SHA256).read_bytes() == CONTENT
        assert server.sent[-1] < len(CONTENT) - 4000
    else:  # such a server begins anew
        with pytest.raises(UsageError, match="broke off"):
            download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
        server.answers[NAME] = ("application/octet-stream", len(CONTENT), CONTENT)
        assert download.fetch(f"{server.url}/{NAME}", sha256=SHA256).read_bytes() == CONTENT
    assert left_over() == [NAME]


def test_a_part_of_another_file_is_not_gone_on_from(server):
    server.resumes = True
    download.cache().mkdir(parents=True)
    (download.cache() / f".{NAME}.part").write_bytes(b"of another file")
    with pytest.raises(UsageError, match="does not begin with"):
        download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    assert download.fetch(f"{server.url}/{NAME}", sha256=SHA256).read_bytes() == CONTENT


def test_a_slow_server_is_given_up_within_seconds(server, monkeypatch):
    monkeypatch.setattr(download, "SILENT_SECONDS", 0.2)
    server.pause = 1.0
    with pytest.raises(UsageError, match="the server has been silent"):
        download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    assert left_over() == []


def test_a_full_disk_is_told_and_nothing_is_left(server, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", full)
    with pytest.raises(UsageError, match=f"cannot get {NAME} from .*No space left on device"):
        download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    assert left_over() == []


PROCESS = """
import sys
from cnn_jax.weights import download
download.fetch(sys.argv[1], None, sys.argv[2])
"""


def test_two_processes_at_once_both_get_the_whole_file(server):
    server.resumes = True
    server.pause = 0.2
    command = [sys.executable, "-c", PROCESS, f"{server.url}/{NAME}", SHA256]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (download.cache() / NAME).read_bytes() == CONTENT
    assert left_over() == [NAME]


def test_two_at_once_both_get_the_whole_file(server):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = [pool.submit(download.fetch, f"{server.url}/{NAME}", None, SHA256) for _ in range(4)]
        assert all(job.result().read_bytes() == CONTENT for job in jobs)
    assert left_over() == [NAME]


def test_without_network_the_error_comes_at_once_and_says_where_to_put_the_file(server):
    server.shutdown()
    server.server_close()
    start = time.perf_counter()
    with pytest.raises(UsageError, match=f"cannot get {NAME}.*no connection.*put it into"):
        download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    assert time.perf_counter() - start < 10


def test_offline_nothing_is_asked_for(server, monkeypatch):
    monkeypatch.setenv("CNN_JAX_OFFLINE", "1")
    with pytest.raises(UsageError, match="CNN_JAX_OFFLINE is set"):
        download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    assert server.asked == []


def test_a_folder_of_files_is_looked_into_first(server, monkeypatch, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT)
    monkeypatch.setenv("CNN_JAX_WEIGHTS", str(tmp_path))
    assert download.fetch(f"{server.url}/{NAME}", sha256=SHA256) == tmp_path / NAME
    (tmp_path / NAME).write_bytes(b"abc")
    with pytest.raises(UsageError, match="is damaged"):
        download.fetch(f"{server.url}/{NAME}", sha256=SHA256)
    assert server.asked == []


def test_a_mirror_is_asked_instead(server, monkeypatch):
    monkeypatch.setenv("CNN_JAX_WEIGHTS", f"{server.url}/")
    file = download.fetch(f"https://nowhere.invalid/models/{NAME}", sha256=SHA256)
    assert file.read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_an_error_but_is_read(server, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # root writes into any folder
    with pytest.raises(UsageError, match=f"cannot get {NAME}.*Not a directory"):
        download.fetch(f"{server.url}/{NAME}", sha256=SHA256)


def test_files_of_one_name_and_no_known_hash_are_kept_apart(server):
    for folder in "ab":
        content = folder.encode() * 300
        server.answers[f"{folder}/model.safetensors"] = ("application/x", 300, content)
        file = download.fetch(f"{server.url}/{folder}/model.safetensors")
        assert file.read_bytes() == content


def test_a_repository_of_the_hub_gives_its_file_and_what_it_tells_of_it(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    settings = {"input_size": [3, 64, 64], "crop_pct": 0.5, "mean": [0.1, 0.2, 0.3], "tag": "own"}
    config = json.dumps({"num_classes": 2, "label_names": ["a", "b"], "pretrained_cfg": settings})
    place = "owner/net/resolve/main"
    for name, content in (("config.json", config.encode()), ("model.safetensors", CONTENT)):
        server.answers[f"{place}/{name}"] = ("application/octet-stream", len(content), content)
    located = pretrained.locate("lenet5", "hf:owner/net")
    assert located.path.read_bytes() == CONTENT
    assert located.class_names == ("a", "b")
    row = located.row
    assert (row.tag, row.num_classes, row.image_size, row.resize) == ("own", 2, 64, 128)
    assert row.mean == (0.1, 0.2, 0.3)


def test_a_repository_that_is_not_on_the_hub_is_told(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(UsageError, match="404"):
        pretrained.locate("lenet5", "hf:owner/none")
    with pytest.raises(UsageError, match="write hf:OWNER/NAME"):
        pretrained.locate("lenet5", "hf:none")
