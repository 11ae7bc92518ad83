"""Published training settings by name: what each overrides of TrainConfig's defaults.

Each is headed by what it reaches and where that is published. The batch is the global one. A figure
that was measured with this code says so.
"""

from collections.abc import Mapping
from typing import Any

from cnn_jax import errors, plugins
from cnn_jax.training.config import from_dict

# CIFAR-10 in seconds, airbench94_muon.py in github.com/KellerJordan/cifar10-airbench: 94.01 %
# there, the mean of 200 runs, each 2.59 s on one A100. Its loss is the sum over the batch, here
# the mean, so that SGD's rates are 2000 times its .053 and .67.
AIRBENCH94: dict[str, Any] = {
    "model": "airbench94",
    "dataset": "cifar10",
    "crop": "pad",
    "pad": 2,
    "pad_mode": "reflect",
    "alternating_flip": True,
    "epochs": 8,
    "batch_size": 2000,
    "learning_rate": 0.24,
    "schedule": "linear",
    "optimizer": "muon",
    "momentum": 0.6,
    "optimizer_options": (
        "iterations=3, normalize=True, sgd_momentum=0.85, sgd_rates={"
        "'whiten': (106.0, 0.375), "  # for three of the eight epochs
        "'head': (1340.0, 1.0), "
        "'.*': (106.0, 1.0)}"
    ),
    "weight_decay": 4e-3,
    "decay_norms_and_biases": True,
    "label_smoothing": 0.2,
    "whiten": "whiten",
    "freeze": "whiten/kernel|.*/scale",
    "eval_views": "mirror_shift",
}

RECIPES: dict[str, dict[str, Any]] = {
    # ResNet-20 on scikit-learn's digits, on two CPU cores; measured results are in the README.
    "digits": {
        "model": "resnet20",
        "dataset": "digits",
        "image_size": 16,
        "crop": "pad",
        "pad": 2,
        "epochs": 30,
        "batch_size": 128,
        "learning_rate": 0.1,
        "warmup_epochs": 2,
        "nesterov": True,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
    },
    # The narrow airbench network on the class of the drawn shapes' main object, in colour, on two
    # CPU cores: 73.6 % accuracy (seed 0)
    "shapes": AIRBENCH94
    | {
        "model_options": "widths=(16, 32, 32)",
        "dataset": "shapes",
        "image_size": 32,
        "batch_size": 100,
    },
    # A narrow U-Net on the drawn shapes, on two CPU cores: mean IoU .911 (seed 0)
    "unet_shapes": {
        "model": "unet_bn",
        "model_options": "features=(8, 16, 32, 64, 128, 256)",
        "dataset": "shapes",
        "image_size": 128,
        "crop": "pad",
        "pad": 8,
        "flip": True,
        "vertical_flip": True,
        "epochs": 17,
        "batch_size": 16,
        "optimizer": "muon",
        "optimizer_options": "iterations=3",
        "learning_rate": 0.03,
        "schedule": "linear",
        "warmup_epochs": 0.2,
        "weight_decay": 0.0,
        "dice_weight": 1.0,
        "eval_views": "mirrors",
    },
    # A narrow localiser on the drawn shapes, on two CPU cores: 11.8 % top-1 localisation error
    # (seed 0). Muon finds the classes, and needs slow SGD for the boxes' layers.
    "localizer_shapes": {
        "model": "localizer_resnet18",
        "model_options": "features=32, stage_sizes=(1, 1, 1, 1)",
        "dataset": "shapes",
        "image_size": 128,
        "crop": "pad",
        "pad": 8,
        "flip": True,
        "vertical_flip": True,
        "epochs": 20,
        "batch_size": 32,
        "optimizer": "muon",
        "optimizer_options": (
            "iterations=3, sgd_rates={'box_.*': (0.0003, 1.0), '.*': (0.01, 1.0)}"
        ),
        "learning_rate": 0.03,
        "schedule": "linear",
        "warmup_epochs": 1,
        "weight_decay": 0.0,
    },
    # torchvision's references/segmentation for its weights, which it trains on COCO (mean IoU .664
    # over VOC's classes), here on VOC's own pictures
    "deeplabv3_voc": {
        "model": "deeplabv3_resnet50",
        "image_size": 480,
        "eval_image_size": 520,
        "crop": "resized",
        "crop_scale": (0.25, 1.0),
        "flip": True,
        "epochs": 30,
        "batch_size": 32,
        "learning_rate": 0.02,
        "weight_decay": 1e-4,
    },
    # Mask R-CNN on the drawn shapes, for two CPU cores: AP50 .899 of boxes, .877 of masks (seed 0)
    "maskrcnn_shapes": {
        "model": "maskrcnn_resnet10_fpn",
        "dataset": "shapes",
        "flip": True,
        "epochs": 12,
        "batch_size": 16,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "warmup_epochs": 0.5,
        "weight_decay": 1e-2,
        "clip_norm": 5.0,
        "checkpoint_every": 250,
    },
    # What compare_detectors trains on the drawn shapes, for two CPU cores: AP50 .706 of R-CNN, .808
    # of Fast R-CNN (seed 0)
    "rcnn_shapes": {
        "model": "rcnn_resnet10",
        "dataset": "shapes",
        "flip": True,
        "epochs": 3,
        "batch_size": 8,  # images: 32 windows with an object and 96 without
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "warmup_epochs": 0.1,
        "weight_decay": 1e-2,
        "checkpoint_every": 250,
    },
    "fastrcnn_shapes": {
        "model": "fastrcnn_resnet10",
        "dataset": "shapes",
        "flip": True,
        "epochs": 6,
        "batch_size": 8,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "warmup_epochs": 0.25,
        "weight_decay": 1e-2,
        "clip_norm": 5.0,
        "checkpoint_every": 250,
    },
    # Faster R-CNN on the drawn shapes, for two CPU cores: AP50 .928 (seed 0)
    "fasterrcnn_shapes": {
        "model": "fasterrcnn_resnet10_fpn",
        "dataset": "shapes",
        "flip": True,
        "epochs": 14,
        "batch_size": 8,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "warmup_epochs": 0.5,
        "weight_decay": 1e-2,
        "clip_norm": 5.0,
        "checkpoint_every": 250,
    },
    # He et al. 2015, section 4.2: 8.75 % error with ResNet-20, 6.43 % (6.61 +- 0.16 over five runs)
    # with ResNet-110, which the paper warms up at 0.01 until the training error is below 80 %.
    "cifar_resnet": {
        "model": "resnet20",
        "dataset": "cifar10",
        "crop": "pad",
        "flip": True,
        "steps": 64_000,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "step",
        "decay_at": (0.5, 0.75),  # at 32k and 48k
        "weight_decay": 1e-4,
        "decay_norms_and_biases": True,
    },
    # Zagoruyko & Komodakis 2016, section 3: 4.00 % error with WRN-28-10
    "wide_resnet": {
        "model": "wrn_28_10",
        "dataset": "cifar10",
        "crop": "pad",
        "pad_mode": "reflect",
        "flip": True,
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "step",
        "decay_at": (0.3, 0.6, 0.8),  # after 60, 120 and 160 epochs
        "decay_factor": 0.2,
        "nesterov": True,
        "weight_decay": 5e-4,
        "decay_norms_and_biases": True,
    },
    "airbench94": AIRBENCH94,
    # torchvision's references/classification for its V1 weights: 76.13 % top-1 with ResNet-50
    "resnet50": {
        "model": "resnet50",
        "dataset": "imagenet2012",
        "image_size": 224,
        "eval_resize": 256,
        "crop": "resized",
        "flip": True,
        "epochs": 90,
        "batch_size": 256,
        "learning_rate": 0.1,
        "base_batch_size": 256,
        "schedule": "step",
        "decay_at": (1 / 3, 2 / 3),  # after 30 and 60 epochs
        "norm_batch": 32,  # eight devices, each by its own images
        "weight_decay": 1e-4,
        "decay_norms_and_biases": True,
    },
    # flax's examples/imagenet: 76.7 % top-1 with ResNet-50
    "resnet50_cosine": {
        "model": "resnet50",
        "dataset": "imagenet2012",
        "image_size": 224,
        "eval_resize": 256,
        "crop": "resized",
        "flip": True,
        "epochs": 100,
        "batch_size": 256,
        "learning_rate": 0.1,
        "base_batch_size": 256,
        "warmup_epochs": 5,
        "nesterov": True,
        "weight_decay": 1e-4,
        "model_options": "zero_init_residual=True",
    },
    # torchvision's recipe for its V2 weights, here without its repeated sampling: 80.86 % top-1
    "resnet50_v2": {
        "model": "resnet50",
        "dataset": "imagenet2012",
        "image_size": 176,
        "eval_image_size": 224,
        "eval_resize": 232,
        "crop": "resized",
        "flip": True,
        "policy": "trivialaugment",
        "erasing": 0.1,
        "mixup": 0.2,
        "cutmix": 1.0,
        "epochs": 600,
        "batch_size": 1024,
        "learning_rate": 0.5,
        "base_batch_size": 1024,
        "warmup_epochs": 5,
        "warmup_start": 0.01,
        "norm_batch": 128,  # eight devices, each by its own images
        "weight_decay": 2e-5,
        "decay_norms_and_biases": False,
        "label_smoothing": 0.1,
        # its decay of .99998 an image batch of 1, at batch 1024 over 600 epochs every 32 steps
        "ema_decay": 1 - 2e-5 * 1024 * 32 / 600,
        "ema_every": 32,
    },
}


def register_recipe(name: str, options: Mapping[str, Any]) -> None:
    """Let --recipe know these options of TrainConfig by this name.

    Raises:
      UsageError: the name is taken, or an option is unknown or has no such value.
    """
    from_dict(options)
    plugins.register(RECIPES, "recipe", name, dict(options))


def recipe(name: str) -> dict[str, Any]:
    """Return the options that the named recipe sets.

    Raises:
      UsageError: no such recipe; the message names the near ones.
    """
    if name not in RECIPES:
        raise errors.unknown("recipe", name, RECIPES)
    return dict(RECIPES[name])
