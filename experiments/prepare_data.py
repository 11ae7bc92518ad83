"""Prepares a data set, or checks a folder of images.

./launch.sh prepare_data --dataset=cifar10
./launch.sh prepare_data --dataset=mnist --source_dir=~/Downloads    files that are there already
./launch.sh prepare_data --dataset=folder:PATH      decodes every image, as training does
"""

from absl import flags

from cnn_jax.data import datasets, folder
from cnn_jax.errors import UsageError

from . import app

_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Data set to prepare: mnist, fashion_mnist, cifar10, cifar100, any other name of "
    "TensorFlow Datasets such as imagenet2012, or folder:PATH, a folder or a CSV file.",
    required=True,
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the TFDS data sets; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.",
)
_SOURCE_DIR = flags.DEFINE_string(
    "source_dir",
    None,
    "Folder with the original files, which are then not downloaded; for imagenet2012 "
    "the folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar.",
)
_CHANNELS = flags.DEFINE_integer(
    "channels", 3, "Number of channels with which training will read folder:PATH: 1, 3 or 4."
)


def main(argv):
    del argv
    name = _DATASET.value
    if name.startswith("folder:"):
        path = name.removeprefix("folder:")
        count = folder.verify(path, _CHANNELS.value, say=lambda line: print(f"note: {line}"))
        print(f"{name}: all {count} images can be read")
        return
    if datasets.own(name):
        raise UsageError(f"{name} is a function, which prepares its data itself; train on it")
    path = datasets.prepare(name, _DATA_DIR.value, _SOURCE_DIR.value)
    print(f"{name} is prepared in {path}")


if __name__ == "__main__":
    app.run(main)
