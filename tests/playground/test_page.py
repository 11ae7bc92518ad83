"""The playground's page is one file that asks nobody for anything, and its bundle is up to date."""

import base64
import json
import os
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from cnn_jax.playground import datasets, page

PACKAGE = Path(page.__file__).parent
BROWSER = PACKAGE / "browser"


@pytest.fixture(scope="module")
def rendered():
    return page.render()


def content(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)<', text)[1])


def test_the_page_holds_its_data_style_and_code(rendered):
    assert (BROWSER / "style.css").read_text() in rendered
    assert (PACKAGE / "bundle.js").read_text() in rendered
    (digits, shapes) = content(rendered)["datasets"]
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(digits["images"])), np.uint8)
    assert pixels.reshape(digits["count"], 8, 8, 1).max() == 255
    assert (digits["train"], digits["count"]) == (1438, 1797)
    assert shapes["classes"] == list(datasets.SHAPE_CLASSES)


def test_nothing_inside_ends_a_script_early(rendered):
    assert rendered.count("</script") == 2
    assert "<!--" not in rendered.partition("<script")[2]


def test_a_page_alone_names_no_server(rendered):
    assert "cnn-jax-server" not in rendered.partition("<script")[0]


def test_a_served_page_carries_its_token_escaped():
    meta = '<meta name="cnn-jax-server" content="a&quot;b">'
    assert meta in page.render(data=[], server='a"b').partition("<script")[0]


def test_the_bundle_is_what_its_sources_give(tmp_path):
    if shutil.which("node") is None or not (BROWSER / "node_modules").exists():
        if os.environ.get("CNN_JAX_BROWSER") == "required":
            pytest.fail("node or the packages of `npm ci` are missing")
        pytest.skip("node or the packages of `npm ci` are missing")
    built = tmp_path / "bundle.js"
    environment = os.environ | {"OUTPUT": str(built)}
    subprocess.run(["npm", "run", "--silent", "build"], cwd=BROWSER, env=environment, check=True)
    assert built.read_text() == (PACKAGE / "bundle.js").read_text()


def test_the_lock_names_no_registry():
    assert "resolved" not in (BROWSER / "package-lock.json").read_text()
