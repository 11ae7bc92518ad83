"""The flag that names another network, which says what it sees in the pictures that one made."""

from absl import flags

from cnn_jax import trained
from cnn_jax.errors import UsageError
from cnn_jax.trained import Trained


def define() -> None:
    """Define the flag."""
    flags.DEFINE_string(
        "judge",
        None,
        "Another network that says what it sees in each picture, at the picture's own size where "
        "it takes that: MODEL or MODEL:WEIGHTS, such as tf_efficientnet_lite2:pretrained, or the "
        "folder of a run.",
        module_name="Judgement",
    )


def load(network: Trained) -> Trained | None:
    """Return the network of --judge, which knows all classes of this one; None without the flag.

    Raises:
      UsageError: no such network, run or weights, or one that does not know the classes.
    """
    named, judge = flags.FLAGS.judge, load_any()
    if judge is None:
        return None
    missing = [name for name in network.class_names if name not in judge.class_names]
    if missing or not network.class_names:
        example = f", as {missing[0]!r}" if missing else ""
        raise UsageError(
            f"--judge={named} does not know all classes of {network.model.name}{example}; "
            "give a network of the same classes"
        )
    return judge


def load_any() -> Trained | None:
    """Return the network of --judge, whatever its classes; None without the flag.

    Raises:
      UsageError: no such network, run or weights.
    """
    named = flags.FLAGS.judge
    if named is None:
        return None
    if "/" in named.partition(":")[0]:
        return trained.from_workdir(named)
    model, _, weights = named.partition(":")
    return trained.from_weights(model, weights or "pretrained")
