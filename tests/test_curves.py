"""How the cost of a training step grows, by workers whose costs are made up, and by real ones."""

from contextlib import contextmanager

import pytest

from cnn_jax.benchmark import Spec, curves
from cnn_jax.benchmark.measurement import resolve
from cnn_jax.errors import UsageError
from cnn_jax.reports import curves as report

SPEC = resolve(Spec("curves"), 1)


@pytest.fixture
def started(monkeypatch):
    """Workers whose step takes a millisecond an image; the specs and environments of all."""
    all_of_them = []

    class Side:
        def __init__(self, spec):
            self.spec = spec
            depth = spec.model_options.partition("=")[2]
            self.facts = {
                "trace_seconds": 1.0,
                "compile_seconds": float(depth or 20),
                "program_bytes": 2**20 * spec.image_size,
                "parameters": 7,
                "platform": "cpu",
            }

        def ask(self, command):
            assert command == "warm_up"

        def turn(self):
            return self.spec.batch_size / 1000

    @contextmanager
    def start(name, spec, environment):
        assert name == "jax"
        all_of_them.append((spec, environment))
        yield Side(spec)

    monkeypatch.setattr(curves, "started", start)
    return all_of_them


def test_a_curve_varies_one_thing_and_all_start_from_an_empty_cache(started):
    found = curves.measure(SPEC, rounds=2)["curves"]
    assert {name: [row["value"] for row in rows] for name, rows in found.items()} == {
        name: list(curve.values) for name, curve in curves.CURVES.items()
    }
    assert [row["milliseconds"]["median"] for row in found["devices"]] == pytest.approx([16] * 4)
    assert [row["images_per_second"]["median"] for row in found["batch"]] == pytest.approx(
        [1e3] * 8
    )
    assert [row["compile_seconds"] for row in found["depth"]] == list(curves.CURVES["depth"].values)
    assert [row["image_size"] for row in found["resolution"]] == [32, 48, 64, 96, 128, 192]
    assert "milliseconds" not in found["depth"][0]
    caches = [environment["JAX_COMPILATION_CACHE_DIR"] for _, environment in started]
    assert len(set(caches)) == len(started) == 24
    flags = [environment["XLA_FLAGS"] for _, environment in started[:4]]
    assert [each[-1] for each in flags] == ["1", "2", "4", "8"]  # --xla_..._device_count=1


def test_the_page_has_a_table_and_a_curve_of_each(started, tmp_path):
    results = curves.measure(SPEC, rounds=3)
    page = "".join(map(str, report.sections(results, tmp_path)))
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert all(axes.title in page for axes in report._AXES.values())
    text = report.lines(results)
    assert text[0] == "costs of training resnet20, batch 16, 32 x 32 pixels, float32"
    assert "seconds by layers: 20: 21, 32: 33" in text[3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 12}, "--batch_size=12 does not divide by 8 devices; give a multiple"),
        ({"model": "lenet5"}, "varies the depth, which lenet5 does not take .*--model=resnet20"),
        ({"input": "decoded"}, "curves does not take --input=decoded; leave it out"),
    ],
)
def test_what_has_no_curve_is_refused_at_once(started, change, message):
    with pytest.raises(UsageError, match=message):
        curves.measure(SPEC._replace(**change), rounds=1)
    assert not started


@pytest.mark.large  # a minute and a half of compiling
def test_a_real_step_takes_more_memory_for_larger_images(monkeypatch):
    few = {name: curve._replace(values=curve.values[:2]) for name, curve in curves.CURVES.items()}
    monkeypatch.setattr(curves, "CURVES", few)
    found = curves.measure(SPEC._replace(turn_seconds=0), rounds=1)["curves"]
    small, large = (row["program_bytes"] for row in found["resolution"])
    assert large > 1.5 * small
    assert all(row["milliseconds"]["median"] > 0 for row in found["devices"])
    shallow, deep = (row["parameters"] for row in found["depth"])
    assert deep > 1.5 * shallow
