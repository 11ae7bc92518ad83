"""Write roi_sizes.npz: torchvision's pooling of regions of every size from 1 to 100 pixels.

Run from the repository's root, where torch and torchvision are installed:
`python -m tests.references.make_roi_sizes`. Only the columns' bins are kept, of one row.
"""

from pathlib import Path

import numpy as np
import torch
from torchvision import ops

OUTPUTS = (2, 3, 4, 6, 7, 14)  # that the literature pools regions to


def row() -> np.ndarray:
    """Return a feature map [1, 100, 1] whose pixels all differ."""
    return np.random.default_rng(0).permutation(100).reshape(1, 100, 1).astype(float)


def boxes(last: int) -> np.ndarray:
    """Return a box of each size; its end is `last` pixels from its start and its size."""
    return np.array([[0.0, 0, size + last, 1 + last] for size in range(1, 101)])


def main() -> None:
    plane = torch.from_numpy(row()).permute(2, 0, 1)[None]
    arrays = {}
    for dtype in (torch.float32, torch.float64):
        for outputs in OUTPUTS:
            shape, bits = (outputs, outputs), torch.finfo(dtype).bits
            pool = ops.roi_pool(plane.to(dtype), [torch.from_numpy(boxes(-1)).to(dtype)], shape)
            align = ops.roi_align(
                plane.to(dtype), [torch.from_numpy(boxes(0)).to(dtype)], shape, sampling_ratio=-1
            )
            arrays[f"pool/{bits}/{outputs}"] = pool[:, 0, 0].numpy().astype(np.uint8)
            arrays[f"align/{bits}/{outputs}"] = align[:, 0, 0].numpy().astype(np.float32)
    np.savez_compressed(Path(__file__).with_name("roi_sizes.npz"), **arrays)


if __name__ == "__main__":
    main()
