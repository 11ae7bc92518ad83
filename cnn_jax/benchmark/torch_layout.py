"""The order of an image's axes in PyTorch's memory."""

# pyright: reportMissingImports=false

import torch

from cnn_jax.benchmark.spec import Spec


def memory_format(spec: Spec) -> torch.memory_format:
    """Return the format of the Spec's layout."""
    return torch.channels_last if spec.layout == "channels_last" else torch.contiguous_format
