"""What is stated of published networks."""

import pytest

from cnn_jax.models.published import CENTRE_CROP, COMPARISON_SLIDE, PUBLISHED
from cnn_jax.models.registry import MODELS


def test_rows_are_of_registered_networks():
    assert set(PUBLISHED) <= set(MODELS)
    assert set(COMPARISON_SLIDE) <= set(MODELS)


@pytest.mark.parametrize(
    ("name", "top1", "top5", "source"),
    [
        # torchvision's documentation of its weights, as 100 - accuracy
        ("resnet50", 23.870, 7.138, "torchvision, IMAGENET1K_V1 weights"),
        ("convnext_tiny", 17.480, 3.854, "torchvision, IMAGENET1K_V1 weights"),
        # timm's results-imagenet.csv
        ("legacy_senet154", 18.680, 4.498, "timm, in1k weights"),
        ("tf_efficientnet_b0", 23.118, 6.730, "timm, aa_in1k weights"),
    ],
)
def test_accuracies_become_errors(name, top1, top5, source):
    row = PUBLISHED[name]
    assert (row.top1_error, row.top5_error) == pytest.approx((top1, top5))
    assert (row.protocol, row.source) == (CENTRE_CROP, source)


def test_errors_are_percentages_with_protocol_and_source():
    for name, row in PUBLISHED.items():
        given = [error for error in (row.top1_error, row.top5_error) if error is not None]
        assert given, name
        assert all(0 < error < 100 for error in given), name
        assert row.top1_error is None or row.top5_error is None or row.top5_error < row.top1_error
        assert row.protocol, name
        assert row.source, name
