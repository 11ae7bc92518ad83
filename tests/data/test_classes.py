"""Classes are matched by name; what cannot be matched is one error that names it."""

import numpy as np
import pytest

from cnn_jax.data import classes
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError

PETS = ("bird", "cat", "dog")


def dataset(names, source=None):
    source = source or [{"label": np.int64(i), "name": name} for i, name in enumerate(names)]
    return Dataset("pets", "test", source, len(names), tuple(names), (8, 8, 3), (0.5,), (0.5,))


def numbers(matched):
    return {example["name"]: int(example["label"]) for example in matched.source}


def test_the_same_classes_in_the_same_order_stay_as_they_are():
    own = dataset(PETS)
    assert classes.matched(own, PETS, "the network") is own
    assert classes.matched(own, (), "a network of unknown classes") is own


@pytest.mark.parametrize("names", [("dog", "bird", "cat"), ("cat", "dog"), ("dog",)])
def test_another_order_and_a_part_of_the_classes_get_the_networks_numbers(names):
    matched = classes.matched(dataset(names), PETS, "the network")
    assert numbers(matched) == {name: PETS.index(name) for name in names}
    assert (matched.class_names, matched.num_classes) == (PETS, 3)


def test_unknown_classes_are_one_error_that_names_and_counts_them():
    with pytest.raises(UsageError) as error:
        classes.matched(dataset(("Cat", "dog", "fox")), PETS, "runs/pets")
    assert str(error.value) == (
        "the classes of pets are not those of runs/pets: 'Cat', 'fox' (2 of 3) unknown; "
        "'bird', 'cat' (2 of 3) missing; give the same classes the same names, or leave out what "
        "is unknown"
    )


def test_of_many_unknown_classes_the_first_are_named():
    many = [f"species {i}" for i in range(200)]
    with pytest.raises(UsageError, match=r"'species 4', \.\.\. \(200 of 200\) unknown") as error:
        classes.matched(dataset(many), PETS, "runs/pets")
    assert len(str(error.value)) < 300


def test_a_part_is_not_enough_where_all_classes_must_be_there():
    assert classes.matched(dataset(PETS[::-1]), PETS, "the run", whole=True).class_names == PETS
    with pytest.raises(UsageError, match=r": 'bird' \(1 of 3\) missing; give"):
        classes.matched(dataset(("cat", "dog")), PETS, "the run", whole=True)


@pytest.mark.parametrize(
    ("names", "known"), [(("0", "1", "2"), PETS), (PETS, ("0", "1", "2")), (("0", "1"), "ab")]
)
def test_where_one_side_has_numbers_only_they_are_matched_by_number_and_that_is_told(names, known):
    said = []
    matched = classes.matched(dataset(names), known, "the network", warn=said.append)
    assert list(numbers(matched).values()) == list(range(len(names)))
    assert len(said) == 1
    assert "matched by number" in said[0]


def test_numbers_that_are_names_are_names():
    folders = ("0", "1", "10", "11", *map(str, range(2, 10)))  # as sorted folders are
    said = []
    matched = classes.matched(dataset(("3", "10")), folders, "the run", warn=said.append)
    assert numbers(matched) == {"3": 5, "10": 2}
    padded = classes.matched(dataset([f"{i:02}" for i in range(12)]), folders, "the run")
    assert numbers(padded)["10"] == 2
    with pytest.raises(UsageError, match=r"'0' \(1 of 3\) unknown; '3' \(1 of 3\) missing"):
        classes.matched(dataset(("0", "1", "2")), ("1", "2", "3"), "the run", warn=said.append)
    assert not said


def test_numbers_do_not_stand_for_some_of_the_names():
    with pytest.raises(UsageError, match="unknown"):
        classes.matched(dataset(("0", "1")), PETS, "the network")
    with pytest.raises(UsageError, match="unknown"):
        classes.matched(dataset(PETS), tuple(map(str, range(10))), "the network")


def test_classes_are_also_known_under_their_other_names():
    synsets = ("n01", "n02", "n03")
    matched = classes.matched(dataset(("n03", "n01")), PETS, "imagenet", other_names=[synsets])
    assert numbers(matched) == {"n03": 2, "n01": 0}
    assert matched.class_names == PETS


def test_a_name_of_two_classes_tells_nothing():
    birds = ("crane", "dog", "crane")
    assert numbers(classes.matched(dataset(("dog",)), birds, "imagenet")) == {"dog": 1}
    with pytest.raises(UsageError, match=r"'crane' \(1 of 1\) unknown"):
        classes.matched(dataset(("crane",)), birds, "imagenet")


def test_masks_and_objects_are_renumbered_and_what_is_no_class_stays():
    mask = np.array([[0, 1, 255]], np.uint8)
    example = {
        "mask": mask,
        "label": np.int64(-1),
        "objects": {"bbox": np.eye(2, 4), "label": np.array([1, 0])},
    }
    swapped = classes.matched(dataset(("b", "a"), [example]), ("a", "b"), "the network").source[0]
    np.testing.assert_array_equal(swapped["mask"], [[1, 0, 255]])
    assert swapped["mask"].dtype == np.uint8
    assert swapped["label"] == -1
    np.testing.assert_array_equal(swapped["objects"]["label"], [0, 1])
    np.testing.assert_array_equal(example["objects"]["label"], [1, 0])
    np.testing.assert_array_equal(mask, [[0, 1, 255]])


def test_a_background_that_no_example_is_labelled_with_is_left_out_of_the_count():
    example = {"objects": {"label": np.array([0, 1])}}
    names = ("background", "disk", "ring")
    known = ("background", "ring", "square", "disk")
    matched = classes.matched(dataset(names, [example]), known, "the detector", first=1)
    np.testing.assert_array_equal(matched.source[0]["objects"]["label"], [2, 0])
    assert matched.num_classes == 4


def test_a_source_that_knows_its_labels_still_does():
    class Source(list):
        labels = (0, 1, 0)

    matched = classes.matched(dataset(("b", "a"), Source("xyz")), ("a", "b"), "the network")
    assert matched.source.labels == [1, 0, 1]
