"""What visitors do on the served page, in headless Chromium, with a tiny network behind it.

The visit is tests/playground/served_scenarios.js. It is skipped where Chromium, node or the
packages of `npm ci` are missing; CNN_JAX_BROWSER=required makes that a failure.
"""

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from cnn_jax.playground import computations, page, server
from tests.playground.test_browser import CHROMIUM, missing


@pytest.mark.slow
def test_a_visitor_explains_attacks_and_brings_a_photograph(serve, subject, tmp_path, monkeypatch):
    monkeypatch.setattr(computations, "MOST_STEPS", 100_000)
    if missing():
        if os.environ.get("CNN_JAX_BROWSER") == "required":
            pytest.fail(f"missing: {missing()}")
        pytest.skip(f"missing: {missing()}")
    served = serve(
        server.Playground({"tiny": lambda: subject}), render=lambda token: page.render(server=token)
    )
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "own.png")
    done = subprocess.run(
        [
            *("node", Path(__file__).parent / "served_scenarios.js"),
            *(f"http://127.0.0.1:{served.port}/", tmp_path / "own.png"),
        ],
        env=os.environ | {"CHROMIUM": CHROMIUM},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
