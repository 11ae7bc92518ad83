"""What is measured."""

from typing import NamedTuple


class Spec(NamedTuple):
    """What both sides are told; plain values, as they travel to the workers as JSON.

    task: a name in jax_tasks.TASKS.
    model, model_options: as in training.config.TrainConfig.
    image_size: in pixels; None: the model's own.
    dtype: of the computation, "float32" or "bfloat16".
    input: "synthetic", one random batch that lies on the device, or "decoded", JPEG files.
    images: the folder of these files.
    num_threads: that decode; None: one a core, at most 16.
    turn_seconds: how long a turn should last; a turn is one call at least.
    layout: of PyTorch's images, "nchw" or "channels_last".
    torch_compile: whether PyTorch's model goes through torch.compile.
    """

    task: str
    model: str
    model_options: str = ""
    batch_size: int = 16
    image_size: int | None = None
    dtype: str = "float32"
    input: str = "synthetic"
    images: str | None = None
    num_threads: int | None = None
    turn_seconds: float = 1.0
    layout: str = "nchw"
    torch_compile: bool = False
