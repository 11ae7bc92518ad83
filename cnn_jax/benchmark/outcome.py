"""What came of a call, by name: what shows that both sides did the same."""

import numpy as np
from jaxtyping import Float, Int


def of_attack(
    pixels: Float[np.ndarray, "n ..."],
    adversarial: Float[np.ndarray, "n ..."],
    classes: Int[np.ndarray, " n"],
    found: Int[np.ndarray, " n"],
) -> dict[str, float]:
    """Return the share of the images whose class changed, and the perturbations' median length.

    Args:
      classes, found: before and after.
    """
    lengths = np.linalg.norm((adversarial - pixels).reshape(len(pixels), -1), axis=1)
    return {"fooled": float((found != classes).mean()), "median_l2": float(np.median(lengths))}


def of_picture(picture: Float[np.ndarray, "..."]) -> dict[str, float]:
    """Return the mean of the absolute values of a map, or of an image's change."""
    return {"mean_absolute": float(np.abs(picture).mean())}
