"""Boxes that may hold an object, from selective search, kept in files.

Uijlings et al. 2013, "Selective search for object recognition", which R-CNN and Fast R-CNN take
their regions from. It is OpenCV's, which is compiled, kept up and the same on every platform: the
packages selectivesearch and selective-search are Python, and the authors' own is MATLAB.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from cnn_jax.data import decoding, geometry
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.runtime.cores import cores

# Examples a file: a search that is stopped goes on behind the last whole one.
PART = 250


def _segmentation():
    """The module of OpenCV that selective search is in."""
    try:
        from cv2.ximgproc import segmentation  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(
            "selective search is OpenCV's; .venv/bin/pip install opencv-contrib-python-headless"
        ) from None
    return segmentation


def selective_search(
    image: UInt8[np.ndarray, "h w 3"], *, quality: bool = False
) -> Float[np.ndarray, "p 4"]:
    """Return the boxes (x1, y1, x2, y2), in pixels, of the segments and of what they merge into.

    OpenCV draws their order anew each time; here it is shuffled by a fixed seed, so that the first
    ones are a fair sample of all sizes and the same in every run.

    Args:
      quality: more colour spaces, similarities and scales: some times as many boxes and seconds.

    Raises:
      UsageError: OpenCV, or its part with selective search, is not installed.
    """
    search = _segmentation().createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))  # blue first
    if quality:
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSelectiveSearchFast()
    boxes = np.asarray(search.process(), np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]  # width and height
    boxes = np.unique(boxes, axis=0)
    return boxes[np.random.default_rng(0).permutation(len(boxes))]


def of_split(
    dataset: Dataset,
    canvas: int,
    folder: str | os.PathLike,
    say: Callable[[str], None] = lambda line: None,
) -> list[Float[np.ndarray, "_p 4"]]:
    """Return selective search's boxes of every example, scaled to fit the canvas.

    Each is searched once: what is found is kept in the folder, in files of PART examples.

    Args:
      say: is told, in one line, of every new file.

    Raises:
      UsageError: OpenCV is needed and not installed, or a file is not of this split.
    """
    folder, count = Path(folder), len(dataset.source)
    folder.mkdir(parents=True, exist_ok=True)
    identity = f"{dataset.name} {dataset.split} {canvas}"

    def search(index: int) -> Float[np.ndarray, "p 4"]:
        image = decoding.decode(dataset.source[index]["image"], 3)
        return selective_search(np.asarray(geometry.fit(image, canvas)))

    found: list[np.ndarray] = []
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, count, PART):
            stop = min(start + PART, count)
            file = folder / f"{start:06d}.npz"
            if not file.exists():
                _segmentation()
                boxes = list(pool.map(search, range(start, stop)))
                _write(file, boxes, identity)
                say(f"selective search: {stop} of {count} images of {dataset.split}")
            found += _read(file, identity)
    return found


def _write(file: Path, boxes: list[np.ndarray], identity: str) -> None:
    counts = np.array([len(each) for each in boxes])
    new = file.with_suffix(".new")
    with new.open("wb") as stream:
        np.savez_compressed(stream, boxes=np.concatenate(boxes), counts=counts, identity=identity)
    new.replace(file)  # whole, or not there


def _read(file: Path, identity: str) -> list[np.ndarray]:
    with np.load(file) as saved:
        if str(saved["identity"]) != identity:
            raise UsageError(
                f"{file} holds proposals of {saved['identity']}, not of {identity}; "
                "take another folder"
            )
        return np.split(saved["boxes"], np.cumsum(saved["counts"])[:-1])
