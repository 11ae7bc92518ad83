"""The page of the lecture's worked examples: every number that its slides state."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.command import run_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convolution")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, size=(20, 28, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((224, 160), Image.Resampling.BICUBIC)
    image.save(folder / "photo.png")
    done = run_command(
        "convolution", f"--workdir={folder / 'page'}", f"--image={folder / 'photo.png'}", "--seed=1"
    )
    assert done.returncode == 0, done.stderr
    return folder / "page"


@pytest.fixture(scope="module")
def results(workdir):
    return json.loads((workdir / "results.json").read_text())


def test_the_weighted_average_finds_the_ship_better_than_the_sensor(results):
    laser = results["laser_sensor"]
    assert laser["error_measured"] == pytest.approx(0.25, rel=0.2)
    assert laser["error_smoothed"] < 0.6 * laser["error_measured"]
    assert laser["noise_kept"] < laser["error_smoothed"] / laser["error_measured"]
    assert laser["difference_from_the_sum"] < 1e-14
    assert sum(laser["weights"]) == pytest.approx(1)


def test_the_letters_of_the_two_dimensional_example(results):
    assert results["letters"]["correlation"] == [
        ["aw + bx + ey + fz", "bw + cx + fy + gz", "cw + dx + gy + hz"],
        ["ew + fx + iy + jz", "fw + gx + jy + kz", "gw + hx + ky + lz"],
    ]
    assert results["letters"]["convolution"][0][0] == "az + by + ex + fw"
    assert results["letters"]["convolution_exchanged_difference"] < 1e-14
    assert results["letters"]["correlation_exchanged_difference"] > 0.1


def test_the_7x7_grid(results):
    rows = {row["stride"]: row for row in results["output_sizes"]["strides"]}
    assert [rows[stride]["computed"] for stride in (1, 2)] == [5, 3]
    assert all(row["output"] == row["computed"] for row in rows.values())
    assert rows[3]["quotient"] == pytest.approx(7 / 3)
    assert rows[3]["unseen"] == 1


def test_75_parameters(results):
    cost = results["costs"]["filter"]
    assert cost["outputs"] == [28, 28]
    assert cost["parameters"] == 75
    assert cost["multiplications"] == 28 * 28 * 5 * 5 * 3


def test_the_two_filters(results):
    assert results["edge_filters"]["columns_by_vertical"] == [[0, 3, 3, 0]] * 4
    assert results["edge_filters"]["rows_by_horizontal"] == [[0] * 4, [3] * 4, [3] * 4, [0] * 4]
    assert not np.any(results["edge_filters"]["columns_by_horizontal"])


def test_connections(results):
    k, n = 3, 5
    line = results["costs"]["line"][str(k)]
    assert line["dense_parameters"] == 5 * n
    assert line["local_parameters"] == k * n
    assert line["parameters"] == k
    edges = results["costs"]["edges"]  # Goodfellow, Bengio & Courville 2016, figure 9.6
    assert edges["outputs"] == [280, 319]
    assert edges["dense_parameters"] == 320 * 280 * 319 * 280
    assert results["connections"]["parameters"] == {
        "convolution": 2,
        "tiled": 4,
        "local": 8,
        "dense": 20,
    }


def test_receptive_fields_grow_with_depth(results):
    assert results["receptive_fields"]["stride 1"] == [3, 5, 7, 9, 11, 13, 15, 17]
    assert results["receptive_fields"]["stride 2"] == [2**depth - 1 for depth in range(2, 10)]


def test_convolution_commutes_with_translation_and_brightness_alone(results):
    shift, double, both, *others = results["equivariance"].values()
    assert max(shift, double, both) < 1e-14
    assert min(others) > 0.1


def test_max_pooling_and_its_gradient(results):
    pool = results["pooling"]
    assert pool["output"] == [[9, 8], [8, 5]]
    assert pool["gradient"] == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    assert pool["unpooled"] == [[0, 0, 0, 8], [9, 0, 0, 0], [0, 0, 0, 0], [8, 0, 0, 5]]
    assert pool["parameters"] == 0


def test_wider_pooling_changes_less_under_a_shift(results):
    change = results["pooling_invariance"]["change"]
    by_one = [change[name][1] for name in ("no pooling", "maximum, 3x3", "maximum, 7x7")]
    assert by_one[0] > by_one[1] > by_one[2] > 0
    assert results["pooling_invariance"]["inputs_changed"] == 4
    assert results["pooling_invariance"]["outputs_changed"] == 2


def test_maxout_answers_to_every_angle(results):
    assert results["learned_invariance"]["least_of_one"] < 0.3
    assert results["learned_invariance"]["least_of_maxout"] > 0.75


def test_pooling_at_every_second_place_halves_the_line(results):
    assert results["pooling_with_downsampling"]["output"] == [1.0, 0.2, 0.1]


def test_pooling_takes_images_of_any_size(results):
    rows = results["any_input_size"]["rows"]
    assert len({row["flattened"] for row in rows}) == 3
    assert {(row["pyramid"], row["adaptive_2x2"], row["global"]) for row in rows} == {(336, 64, 16)}


def test_stride_is_dropping_results(results):
    strided = results["strided_convolution"]
    assert strided["difference"] < 1e-14
    ratio = strided["multiplications_stride_1"] / strided["multiplications_stride_2"]
    assert ratio == pytest.approx(4, rel=0.05)


def test_without_padding_the_depth_is_limited(results):
    assert results["zero_padding"]["valid"] == [16, 11, 6, 1]
    assert results["zero_padding"]["same"] == [16, 16, 16, 16]


def test_backpropagation_symbol_by_symbol(results):
    back = results["backpropagation"]
    assert back["output"] == [
        ["x₁₁f₁₁ + x₁₂f₁₂ + x₂₁f₂₁ + x₂₂f₂₂", "x₁₂f₁₁ + x₁₃f₁₂ + x₂₂f₂₁ + x₂₃f₂₂"],
        ["x₂₁f₁₁ + x₂₂f₁₂ + x₃₁f₂₁ + x₃₂f₂₂", "x₂₂f₁₁ + x₂₃f₁₂ + x₃₂f₂₁ + x₃₃f₂₂"],
    ]
    assert back["filter_gradient"] == [
        [
            "∂L/∂o₁₁ x₁₁ + ∂L/∂o₁₂ x₁₂ + ∂L/∂o₂₁ x₂₁ + ∂L/∂o₂₂ x₂₂",
            "∂L/∂o₁₁ x₁₂ + ∂L/∂o₁₂ x₁₃ + ∂L/∂o₂₁ x₂₂ + ∂L/∂o₂₂ x₂₃",
        ],
        [
            "∂L/∂o₁₁ x₂₁ + ∂L/∂o₁₂ x₂₂ + ∂L/∂o₂₁ x₃₁ + ∂L/∂o₂₂ x₃₂",
            "∂L/∂o₁₁ x₂₂ + ∂L/∂o₁₂ x₂₃ + ∂L/∂o₂₁ x₃₂ + ∂L/∂o₂₂ x₃₃",
        ],
    ]
    assert back["input_gradient"] == [
        ["∂L/∂o₁₁ f₁₁", "∂L/∂o₁₁ f₁₂ + ∂L/∂o₁₂ f₁₁", "∂L/∂o₁₂ f₁₂"],
        [
            "∂L/∂o₁₁ f₂₁ + ∂L/∂o₂₁ f₁₁",
            # the slide has ∂L/∂o₁₂ for the first factor and ∂L/∂x₁₂ for the second
            "∂L/∂o₁₁ f₂₂ + ∂L/∂o₁₂ f₂₁ + ∂L/∂o₂₁ f₁₂ + ∂L/∂o₂₂ f₁₁",
            "∂L/∂o₁₂ f₂₂ + ∂L/∂o₂₂ f₁₂",
        ],
        ["∂L/∂o₂₁ f₂₁", "∂L/∂o₂₁ f₂₂ + ∂L/∂o₂₂ f₂₁", "∂L/∂o₂₂ f₂₂"],
    ]
    assert back["equal_to_the_chain_rule"]
    assert back["filter_gradient_difference"] < 1e-14
    assert back["input_gradient_difference"] < 1e-14


def test_closed_form_gradients_equal_jaxs(results):
    for row in results["closed_form_gradients"]:
        assert row["filter"] < 1e-12
        assert row["input"] < 1e-12


def test_the_page_shows_every_picture(workdir):
    page = (workdir / "report.html").read_text()
    pictures = sorted(path.name for path in (workdir / "figures").iterdir())
    assert page.count("<img ") == len(pictures) == 23
    assert "∂L/∂o₂₂ f₁₁".encode("ascii", "xmlcharrefreplace").decode() in page


def test_an_image_that_cannot_be_read_is_an_error_of_use(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    done = run_command("convolution", f"--workdir={tmp_path / 'page'}", f"--image={broken}")
    assert done.returncode == 2
    assert done.stderr == f"error: cannot read --image={broken}: it is no image that Pillow reads\n"
    assert not (tmp_path / "page").exists()
