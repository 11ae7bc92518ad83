"""Write class_weights.npz: torch.nn.CrossEntropyLoss with weights, in float64, and its gradients.

For labels, with label smoothing, for mixtures of two labels (of which torch gives the sum alone: it
would divide that by the number of examples) and for masks with ignored pixels. Run from the
repository's root, where torch is installed: `python -m tests.references.make_class_weights`.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot

EXAMPLES, CLASSES, SMOOTHING, IGNORED = 16, 5, 0.1, 255


def value_and_gradient(loss, logits: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the loss of these logits and its gradient."""
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    value.backward()
    return {"loss": value.detach().numpy(), "gradient": logits.grad.numpy()}


def main() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([0.2, 3.0, 0.0, 1.0, 1.7], dtype=torch.float64)
    logits = 2 * torch.randn(EXAMPLES, CLASSES, dtype=torch.float64)
    label, mixed_label = torch.randint(CLASSES, (2, EXAMPLES))
    mix = torch.rand(EXAMPLES, dtype=torch.float64)
    target = mix[:, None] * one_hot(label, CLASSES)
    target = target + (1 - mix[:, None]) * one_hot(mixed_label, CLASSES)
    mask_logits = 2 * torch.randn(4, CLASSES, 6, 5, dtype=torch.float64)
    mask = torch.randint(CLASSES, (4, 6, 5))
    mask[torch.rand(mask.shape) < torch.linspace(0, 0.9, 4)[:, None, None]] = IGNORED

    options = {"weight": weights}
    smooth = {"label_smoothing": SMOOTHING}
    results = {
        "hard": (lambda x: cross_entropy(x, label, **options), logits),
        "smooth": (lambda x: cross_entropy(x, label, **options, **smooth), logits),
        "mixed_sum": (
            lambda x: cross_entropy(x, target, **options, **smooth, reduction="sum"),
            logits,
        ),
        "mask": (
            lambda x: cross_entropy(x, mask, **options, ignore_index=IGNORED),
            mask_logits,
        ),
    }
    arrays = {
        "weights": weights.numpy(),
        "logits": logits.numpy(),
        "label": label.numpy().astype(np.int32),
        "mixed_label": mixed_label.numpy().astype(np.int32),
        "mix": mix.numpy(),
        "mask_logits": mask_logits.permute(0, 2, 3, 1).numpy(),
        "mask": mask.numpy().astype(np.uint8),
    }
    for name, (loss, at) in results.items():
        found = value_and_gradient(loss, at)
        if found["gradient"].ndim == 4:
            found["gradient"] = found["gradient"].transpose(0, 2, 3, 1)
        arrays |= {f"{name}/{key}": value for key, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("class_weights.npz"), **arrays)


if __name__ == "__main__":
    main()
