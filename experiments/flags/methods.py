"""The flags of the methods that make maps, and what they ask of a network."""

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.reports.explanations import Question, titles
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import methods

from . import memory as memory_flags
from . import subject as subjects
from . import target as target_flags


def define() -> None:
    """Define the flags, with that of the class and that of the memory."""
    target_flags.define()
    section = {"module_name": "Map"}
    flags.DEFINE_string(
        "layer",
        None,
        "Path of the layer for Grad-CAM; by default the last with rows and columns.",
        **section,
    )
    flags.DEFINE_integer(
        "steps",
        50,
        "Number of steps of the path that integrated gradients takes.",
        lower_bound=1,
        **section,
    )
    flags.DEFINE_integer(
        "samples",
        50,
        "Number of noisy copies that SmoothGrad averages over.",
        lower_bound=1,
        **section,
    )
    flags.DEFINE_integer(
        "masks",
        2000,
        "Largest number of random masks that RISE averages over.",
        lower_bound=1,
        **section,
    )
    flags.DEFINE_float(
        "settled",
        0.95,
        "Reliability at which an image's RISE map takes no more masks: its correlation to expect "
        "with a map of as many others. 1 takes them all.",
        lower_bound=0.0,
        upper_bound=1.0,
        **section,
    )
    memory_flags.define()


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
    names = titles(subject.names, subject.class_names, logits, targets)
    settings = methods.Settings(
        jax.random.key(flags.FLAGS.seed),
        layer=flags.FLAGS.layer,
        steps=flags.FLAGS.steps,
        samples=flags.FLAGS.samples,
        masks=flags.FLAGS.masks,
        settled=flags.FLAGS.settled if flags.FLAGS.settled < 1 else None,
        batch_size=min(memory_flags.batch_size(f, subject.pixels), 64),
        progress=bar("batch"),
    )
    return Question(f, subject.pixels, targets, names), settings, logits
