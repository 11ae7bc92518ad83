"""What the tasks do that have a subject, on both sides; the names are those of our arguments."""

from typing import Any

from cnn_jax.benchmark.spec import Spec

# Madry et al. 2018, for CIFAR-10, at half of the steps that an evaluation takes.
PGD = {"eps": 8 / 255, "step_size": 2 / 255, "steps": 10}

# Moosavi-Dezfooli et al. 2016, of the l2 norm; 10 classes are considered.
DEEPFOOL = {"steps": 50, "overshoot": 0.02, "candidates": 10}

# Croce & Hein 2020, the standard ensemble in l-infinity.
AUTOATTACK = {"eps": 8 / 255, "steps": 100, "queries": 5000}

# Moosavi-Dezfooli et al. 2017, with DeepFool of 10 steps inside.
UNIVERSAL = {"eps": 10 / 255, "goal": 0.8, "epochs": 10, "steps": 10}

# Windows along each axis: 14 x 14 = 196 black squares that do not overlap.
OCCLUSION_WINDOWS = 14

# Sundararajan et al. 2017, by the Gauss-Legendre rule from black.
INTEGRATED_GRADIENTS = {"steps": 50}

# One octave of DeepDream, of the last layer with rows and columns.
DREAM = {"iterations": 10, "step_size": 1.5 / 255, "jitter": 32}

# Simonyan et al. 2014: from zeros, for the first class.
ASCENT = {"steps": 16, "l2_weight": 0.01, "learning_rate": 0.1}


def within(spec: Spec, settings: dict[str, Any]) -> dict[str, Any]:
    """Return an attack's settings with the budget of the Spec, if it has one."""
    return settings if spec.eps is None else settings | {"eps": spec.eps}
