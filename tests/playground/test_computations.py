"""What the served playground computes: frames while it works, the library's numbers at the end."""

import itertools

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import UsageError
from cnn_jax.attacks import gradient, registry
from cnn_jax.playground import computations
from cnn_jax.playground.worker import Stopped
from cnn_jax.visualize import methods


def done(subject, task, **options):
    """Return the last frame of a task, and those before it."""
    frames = []
    options = {"photograph": "sample0"} | options
    return computations.task(task)(subject, options, lambda make: frames.append(make())), frames


def test_a_photograph_is_named_by_the_networks_probabilities(subject):
    last, _ = done(subject, "classify")
    probabilities = np.asarray(jax.nn.softmax(subject.f(subject.samples["sample0"].pixels[None])))[
        0
    ]
    assert [each["probability"] for each in last.classes] == pytest.approx(
        sorted(probabilities, reverse=True)
    )
    assert {each["name"] for each in last.classes} == {"circle", "square", "star", "3"}


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_explains(subject, name):
    last, frames = done(subject, "explain", method=name, target="star", steps=20)
    assert methods.METHODS[name].title in last.text
    assert "star" in last.text
    assert [picture.pixels.shape for picture in last.pictures] == [(128, 128, 3)] * 2
    if name in ("smooth_grad", "integrated_gradients", "rise"):  # of two batches
        assert [(frame.step, frame.steps) for frame in frames] == [(0, 2), (1, 2)]


@pytest.mark.parametrize("name", ["rise", "occlusion"])
def test_a_map_that_adds_up_is_seen_while_it_does(subject, name):
    last, frames = done(subject, "explain", method=name, target="star", steps=40)
    assert not frames[0].pictures
    shown = [frame.pictures[0].pixels for frame in frames[1:]] + [last.pictures[0].pixels]
    assert len(shown) == frames[0].steps > 1
    assert all((a != b).any() for a, b in itertools.pairwise(shown))


# within a budget, to the nearest boundary, by a variable that is no image; the others take long
QUICK = ("pgd", "deepfool", "carlini_wagner")
OTHERS = [pytest.param(n, marks=pytest.mark.large) for n in registry.ATTACKS if n not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_every_attack_is_seen_step_by_step(subject, name):
    last, frames = done(subject, "attack", attack=name, steps=3)
    assert frames
    assert [frame.step for frame in frames] == list(range(1, len(frames) + 1))
    assert all(len(frame.pictures) == 2 for frame in frames)
    assert last.numbers.keys() == {last.text.partition(" is seen as ")[0]}


def test_an_attack_ends_where_the_library_does(subject):
    options = {"eps": 0.05, "steps": 5, "target": "star", "norm": "l2"}
    subject_label = done(subject, "classify")[0].classes[0]["index"]
    assert subject_label != 2
    last, frames = done(subject, "attack", **options)
    pixels = subject.samples["sample0"].pixels[None]
    found = gradient.pgd(
        subject.f, pixels, np.array([subject_label]), jax.random.key(0),
        eps=0.05, norm="l2", steps=5, targets=np.array([2]),
    )  # fmt: skip
    expected = np.round(255 * found[0]).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    np.testing.assert_array_equal(last.pictures[-1].pixels, expected)
    assert set(last.numbers) == {subject.class_names[subject_label], "star"}
    assert len(frames) == 5


@pytest.mark.parametrize(
    ("task", "options", "steps"),
    [
        pytest.param("ascent", {"target": "circle"}, 4, marks=pytest.mark.slow),
        ("ascent", {"layer": "conv1", "channel": 5, "way": "zeros"}, 4),
        ("inversion", {"layer": "relu1"}, 4),
        ("dream", {"layer": "conv2", "octaves": 3}, 4),
    ],
)
def test_what_makes_an_image_shows_it_at_every_step(subject, task, options, steps):
    last, frames = done(subject, task, steps=steps, **options)
    assert [frame.step for frame in frames] == [1, 2, 3, 4]
    first, final = (frame.pictures[-1].pixels for frame in (frames[0], last))
    assert np.any(first != final)
    assert all(picture.alt for picture in last.pictures)


def test_activations_of_maps_and_of_vectors_are_tiles(subject):
    maps, _ = done(subject, "activations", layer="conv2")
    assert "8 of its 8 channels" in maps.pictures[0].alt
    vector, _ = done(subject, "activations", layer="head")
    assert "all 4 numbers" in vector.pictures[0].alt


@pytest.mark.parametrize("task", ["attack", "dream"])
def test_work_that_nobody_waits_for_ends_at_its_next_step(subject, task):
    made = []

    def show(make):
        made.append(make())
        if len(made) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        computations.task(task)(subject, {"photograph": "sample0", "steps": 50}, show)
    assert len(made) == 2


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("nothing", {}, "unknown task 'nothing'"),
        ("classify", {"photograph": "gone"}, "not kept any more"),
        ("classify", {"photograph": 3}, "photograph is no short text"),
        ("explain", {"method": "salience"}, "did you mean 'saliency'"),
        ("explain", {"target": "stars"}, "unknown class 'stars'"),
        ("explain", {"target": "4"}, "numbers go from 0 to 3"),
        ("explain", {"method": "grad_cam", "layer": "head"}, "no rows and columns"),
        ("attack", {"attack": "pgdd"}, "unknown attack"),
        ("attack", {"norm": "l0"}, "pgd knows linf and l2 and l1, not l0"),
        ("attack", {"eps": 3}, "give a number from 0 to 0.25"),
        ("attack", {"eps": 0}, "give a budget above 0"),
        ("attack", {"eps": float("nan")}, "eps is 'nan'"),
        ("attack", {"attack": "deepfool", "target": "star"}, "deepfool has no target"),
        ("attack", {"steps": 10**9}, "give a number from 1 to 2000"),
        ("attack", {"steps": 1.5}, "give a whole number"),
        ("attack", {"steps": True}, "steps is 'True'"),
        ("ascent", {"layer": "conv3"}, "unknown layer 'conv3'"),
        ("ascent", {"layer": "conv2", "channel": 8}, "from 0 to 7"),
        ("ascent", {"way": "up"}, "unknown way"),
        ("dream", {"layer": "head"}, "no rows and columns"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(subject, task, options, message):
    with pytest.raises(UsageError, match=message) as error:
        done(subject, task, **options)
    assert "\n" not in str(error.value)


def test_uploads_are_kept_in_memory_up_to_a_number(subject):
    image = Image.new("RGB", (40, 30), "red")
    first, *others = [subject.add("red", image) for _ in range(computations.MOST_UPLOADS + 1)]
    assert subject.photograph(others[0]).pixels.shape == (16, 16, 3)
    with pytest.raises(UsageError, match="not kept any more"):
        subject.photograph(first)
