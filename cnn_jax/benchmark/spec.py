"""What is measured."""

from typing import NamedTuple


class Spec(NamedTuple):
    """What both sides are told; plain values, as they travel to the workers as JSON.

      task: a name in jax_side.TASKS.
      plugin: modules that register what the worker needs from outside of this package.
      model, model_options: as in training.config.TrainConfig; with a run, that run's; no model: the
        task's usual one.
      against: who does the same, of the task's row; None: nobody.
      run: the folder of a training run, whose network and examples are taken.
      eps: of an attack with a budget, in 0..1 units; None: that of workload.py.
      topology: of the devices whose compiler counts, see programs.plan; None: something is run.
    image_size: in pixels; None: the model's own.
      dtype: of the computation, "float32" or "bfloat16".
      input: "synthetic", one random batch that lies on the device, "decoded", JPEG files, or
        "run", examples of the run's.
      images: the folder of these files.
      num_threads: that decode; None: one a core, at most 16.
      turn_seconds: how long a turn should last; a turn is one call at least.
      workload: the file in which JAX's side leaves its network and images.
      layout: of PyTorch's images, "nchw" or "channels_last".
      torch_compile: whether PyTorch's model goes through torch.compile.
    """

    task: str
    model: str | None = None
    model_options: str = ""
    against: str | None = None
    run: str | None = None
    eps: float | None = None
    topology: str | None = None
    batch_size: int = 16
    image_size: int | None = None
    dtype: str = "float32"
    input: str = "synthetic"
    images: str | None = None
    num_threads: int | None = None
    turn_seconds: float = 1.0
    workload: str | None = None
    layout: str = "nchw"
    torch_compile: bool = False
    plugin: tuple[str, ...] = ()
