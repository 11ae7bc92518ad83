"""The epsilon of batch norms that a model holds constant, brought over from a file of weights.

torchvision's detectors hold the norms of their backbone constant. Their published weights were
trained with an epsilon of 0, which torchvision sets when it loads them; what was trained from a
classifier's backbone, or with plain batch norms, has 1e-5. Tensors alone do not tell.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_jax.errors import UsageError
from cnn_jax.models.entry import Entry

PLAIN = 1e-5  # PyTorch's

Leaves = Mapping[tuple[str, ...], Any]


def constant_variances(leaves: Leaves) -> list[tuple[str, ...]]:
    """Return the paths of the variances whose norms are held constant, with scale and bias."""
    scaled = {path[:-1] for path in leaves if path[0] == "batch_stats" and path[-1] == "scale"}
    return [path for path in leaves if path[-1] == "var" and path[:-1] in scaled]


def epsilon_of(entry: Entry, names: list[str]) -> tuple[float, str]:
    """Return the epsilon of the norms in a file with tensors of these names, and how it is known.

    It is not, and torchvision's published weights' is assumed, where the explanation has a remedy.
    """
    if any(name.endswith("num_batches_tracked") for name in names):
        return PLAIN, "for its batch norms are plain ones, which count batches"
    if "fc.weight" in names:
        return PLAIN, "for it is a classifier's"
    published = entry.current_name and any(entry.current_name(name) != name for name in names)
    if published or entry.norm_epsilon == PLAIN:
        return entry.norm_epsilon, ""
    return entry.norm_epsilon, (
        "as in torchvision's published weights and what was trained from these; the file does not "
        f"tell: where its backbone alone was pretrained, give norm_epsilon={PLAIN:g}"
    )


def with_epsilon(
    entry: Entry, leaves: Leaves, names: list[str], epsilon: float | None
) -> tuple[dict[tuple[str, ...], Any], str]:
    """Return the leaves with the variances that make constant norms the file's, and what to tell.

    Args:
      leaves: path -> array, as the file has them.
      names: of the file's tensors.
      epsilon: of the file's norms; None: what the names tell.

    Raises:
      UsageError: an epsilon for a model that holds no norms constant, or a negative one.
    """
    variances = constant_variances(leaves)
    if epsilon is not None and (not variances or epsilon < 0):
        problem = "is negative" if variances else "is of no use: no norms are held constant"
        raise UsageError(f"norm_epsilon={epsilon} {problem}; leave it out")
    if not variances:
        return dict(leaves), ""
    theirs, why = (epsilon, "as given") if epsilon is not None else epsilon_of(entry, names)
    difference = theirs - entry.norm_epsilon
    if not difference:
        return dict(leaves), f"its norms' epsilon is taken for {theirs:g}, {why}" if why else ""
    moved = {path: np.asarray(leaves[path], np.float64) + difference for path in variances}
    told = f"its norms' epsilon is {theirs:g}, {why}; here it is {entry.norm_epsilon:g}, and the "
    return {**leaves, **moved}, f"{told}variances take up the difference"
