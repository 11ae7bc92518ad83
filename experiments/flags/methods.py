"""The flags of the methods that make maps, and what they ask of a network."""

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.reports.explanations import Question
from cnn_jax.visualize import methods
from experiments.flags import subject as subjects
from experiments.flags import target as target_flags

_LAYER = flags.DEFINE_string(
    "layer",
    None,
    "Path of Grad-CAM's layer; by default the last with rows and columns.",
    module_name="Map",
)
_STEPS = flags.DEFINE_integer(
    "steps", 50, "Nodes of integrated gradients.", lower_bound=1, module_name="Map"
)
_SAMPLES = flags.DEFINE_integer(
    "samples", 50, "Noisy copies of SmoothGrad.", lower_bound=1, module_name="Map"
)
_MASKS = flags.DEFINE_integer("masks", 2000, "Masks of RISE.", lower_bound=1, module_name="Map")


def chosen(names: list[str]) -> list[str]:
    """Return the names of methods, each checked.

    Raises:
      UsageError: one that is unknown.
    """
    for name in names:
        methods.named(name)
    return list(dict.fromkeys(names))


def ask(subject: subjects.Subject) -> tuple[Question, methods.Settings, np.ndarray]:
    """Return the question of the flags, the methods' settings and the logits."""
    f = trained.classifier(subject.network)
    logits = np.asarray(jax.jit(lambda f, pixels: f(pixels))(f, subject.pixels))
    targets = target_flags.targets(subject, logits)
    names = target_flags.answers(subject, logits, targets)
    settings = methods.Settings(
        jax.random.key(subjects.seed()),
        layer=_LAYER.value,
        steps=_STEPS.value,
        samples=_SAMPLES.value,
        masks=_MASKS.value,
        batch_size=min(target_flags.batch_size(f, subject.pixels), 64),
    )
    return Question(f, subject.pixels, targets, names), settings, logits
