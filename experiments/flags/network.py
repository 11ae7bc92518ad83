"""The trained network and the data set that an experiment is about: flags and what they load."""

from pathlib import Path

from absl import flags, logging

from cnn_jax import trained
from cnn_jax.data import datasets, folder
from cnn_jax.errors import UsageError
from cnn_jax.models.registry import find
from cnn_jax.trained import Trained
from cnn_jax.weights import pretrained


def define() -> None:
    """Define the flags that name a trained network."""
    section = {"module_name": "What"}
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of a training run, or with --weights the folder of the results.",
        **section,
    )
    flags.DEFINE_string(
        "step",
        None,
        "Checkpoint to load: the number of its step, or best in a run with --keep_best; by "
        "default the newest intact one.",
        **section,
    )
    flags.DEFINE_string("model", None, "Model that --weights belongs to.", **section)
    flags.DEFINE_string(
        "weights",
        None,
        "Published weights to load: pretrained, a tag (./launch.sh architectures --pretrained "
        "lists them), an address, hf:OWNER/NAME, or a folder or file (.safetensors or .pth). "
        "Without --workdir too, the ImageNet network that comes with the set-up is taken.",
        **section,
    )
    flags.DEFINE_boolean(
        "raw_weights",
        False,
        "Load the weights as the last update left them where a run, or the file of --weights, "
        "keeps a moving average of them as well; by default the average is loaded.",
        **section,
    )
    flags.DEFINE_string(
        "class_names",
        None,
        "Text file with the class names of --weights, one a line, in the order of the "
        "network's outputs, by which a data set's classes are then matched.",
        **section,
    )


def define_dataset() -> None:
    """Define the flags that name a data set and its split."""
    section = {"module_name": "Data"}
    flags.DEFINE_string("dataset", None, "Data set to read; by default that of the run.", **section)
    flags.DEFINE_string(
        "data_dir", None, "Folder of the TFDS data sets; by default as in the run.", **section
    )
    flags.DEFINE_string(
        "split",
        None,
        "Split of the data set, where TFDS slices are allowed (test[:100]); by default that "
        "of the run.",
        **section,
    )


def load_network(task: str | None = "classification") -> Trained:
    """Return the network of --workdir, or of --model with --weights, or the embedded one.

    Args:
      task: what it must be for; None: for whatever.
    """
    values = flags.FLAGS
    named = values.model is not None and values.workdir is None
    if values.weights is not None or named:
        if values.model is None and values.weights != "pretrained":
            raise UsageError("--weights needs --model too")
        return trained.from_weights(
            values.model or pretrained.EMBEDDED[0],
            values.weights or "pretrained",
            task=task or find(values.model or pretrained.EMBEDDED[0]).task,
            class_names=_read_names(values.class_names),
            averaged=not values.raw_weights,
        )
    if values.class_names is not None:
        raise UsageError("--class_names goes with --weights; a run knows its own classes")
    if values.workdir is None:
        return trained.embedded()
    if values.model is not None:
        raise UsageError("--model goes with --weights; a run knows its own model")
    step = flags.FLAGS.step
    if step not in (None, "best"):
        if not step.isdecimal():
            raise UsageError(f"--step={step} is no step; give a number, or best")
        step = int(step)
    return trained.from_workdir(
        flags.FLAGS.workdir, step, task, averaged=not flags.FLAGS.raw_weights
    )


def load_dataset(
    network: Trained, split: str | None = None, *, answers: bool = True
) -> datasets.Dataset:
    """Return the data set of --dataset and --split, else that of the run.

    Args:
      split: instead of the one that is evaluated.
      answers: whether the network's answers are looked at: its classes are then compared with the
        data set's, whose labels become the network's numbers. False keeps the data set's own
        labels and names, for what looks at features alone, of images of any classes.

    Raises:
      UsageError: no such data set or split, other classes or another number of channels.
    """
    name, config = flags.FLAGS.dataset, network.config
    if name is None and config is None:
        raise UsageError("no images given; give --dataset (or --image, to look at your own)")
    name = name or config.dataset
    data_dir = flags.FLAGS.data_dir or (config and config.data_dir)
    own = config is not None and name == config.dataset
    split = (
        split
        or flags.FLAGS.split
        or (own and config.eval_split)
        or datasets.evaluation_split(name, data_dir)
    )
    dataset = datasets.load(name, split, data_dir)
    if name.startswith("folder:") or (config and config.channels):
        dataset = datasets.read_as(dataset, len(network.mean))
    if dataset.image_shape[-1] != len(network.mean):
        raise UsageError(
            f"{name} has {dataset.image_shape[-1]} channels, the network takes {len(network.mean)}"
        )
    if answers:
        dataset = trained.labelled(network, dataset)
    path = name.removeprefix("folder:")
    if not own and split == "test" and path != name and folder.is_split_by_chance(path):
        share = f"{folder.TEST_FRACTION:.0%} of each class in {path}"
        logging.warning("test is drawn, %s; --split=train+test takes all images", share)
    return dataset


def _read_names(file: str | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        lines = Path(file).expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read --class_names={file}: {error}; give a text file") from None
    return tuple(line.strip() for line in lines if line.strip())
