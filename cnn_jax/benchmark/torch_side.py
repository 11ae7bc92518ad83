"""PyTorch's side of a measurement, and the table of its tasks: the same work as JAX's."""

# pyright: reportMissingImports=false

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import data

from cnn_jax.benchmark import inputs, torch_models, torch_tasks
from cnn_jax.benchmark.jax_side import LEARNING_RATE
from cnn_jax.benchmark.program import Program
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.torch_models import memory_format
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.models import create_model
from cnn_jax.runtime.cores import cores
from cnn_jax.training.config import TrainConfig, literal_options

OutOfMemory = torch.OutOfMemoryError


def prepare(spec: Spec) -> tuple[Program, dict[str, Any]]:
    """Return the program and its facts: a thread for each core, TF32 as XLA does."""
    torch.set_num_threads(cores())
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    device = _device()
    program = TASKS[spec.task, spec.against](spec, device)
    if device.type == "cuda":
        kind, count = torch.cuda.get_device_name(), torch.cuda.device_count()
    else:
        kind, count = "cpu", 1
    return program, program.facts | {
        "platform": "gpu" if device.type == "cuda" else "cpu",
        "device_kind": kind,
        "device_count": count,
        "threads": torch.get_num_threads(),
    }


def _device() -> torch.device:
    """The GPU where there is one, unless JAX was told to leave it."""
    use_gpu = torch.cuda.is_available() and os.environ.get("JAX_PLATFORMS") != "cpu"
    return torch.device("cuda" if use_gpu else "cpu")


def peak_device_bytes() -> int | None:
    """Return the most memory that tensors took on the GPU; None on the CPU."""
    return torch.cuda.max_memory_allocated() if _device().type == "cuda" else None


def matrix_product(side: int, dtype: str) -> Callable[[], None]:
    """Return a function that multiplies two square matrices."""
    matrix = torch.ones(side, side, dtype=getattr(torch, dtype))
    return lambda: torch.mm(matrix, matrix)


Batch = tuple[torch.Tensor, torch.Tensor]


def train(spec: Spec, device: torch.device) -> Program:
    """One update by SGD with momentum and weight decay of the kernels."""
    net, forward, batches = _set_up(spec, device, inputs.TRAINING)
    net.train()
    decay = TrainConfig().weight_decay
    kernels = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in net.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": decay}, {"params": others}],
        lr=LEARNING_RATE,
        momentum=0.9,
    )

    def step(state: None, batch: Batch) -> torch.Tensor:
        images, labels = batch
        optimizer.zero_grad(set_to_none=True)
        with _computing(spec, device):
            loss = nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return _program(spec, device, net, step, batches)


def inference(spec: Spec, device: torch.device) -> Program:
    """The logits of a batch of uint8 images."""
    net, forward, batches = _set_up(spec, device, inputs.EVALUATION)
    net.eval()

    def logits(state: None, batch: Batch) -> torch.Tensor:
        with torch.inference_mode(), _computing(spec, device):
            return forward(batch[0])

    return _program(spec, device, net, logits, batches)


def input_pipeline(spec: Spec, device: torch.device) -> Program:
    """A batch of training images by torchvision's transforms and DataLoader; no device.

    The same files, crops and flips, uint8 as ours, from as many processes as ours has threads.
    """
    from torchvision import datasets, transforms  # no other task needs it

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(spec.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )
    images, workers = datasets.ImageFolder(spec.images, transform), inputs.workers(spec)
    without_end = data.RandomSampler(images, num_samples=2**40)
    loader = data.DataLoader(images, spec.batch_size, sampler=without_end, num_workers=workers)
    return Program(
        call=lambda state, batch: batch,
        state=None,
        batches=iter(loader),
        images=spec.batch_size,
        lead=2 * workers + 1,  # each process reads two batches ahead
        outcome=lambda batch: {"mean_value": float(batch[0].float().mean())},
    )


TASKS: dict[tuple[str, str], Callable[[Spec, torch.device], Program]] = {
    ("train", "torch"): train,
    ("inference", "torch"): inference,
    ("input", "torch"): input_pipeline,
    ("pgd", "torchattacks"): torch_tasks.pgd_torchattacks,
    ("pgd", "foolbox"): torch_tasks.pgd_foolbox,
    ("deepfool", "adv_lib"): torch_tasks.deepfool_adv_lib,
    ("deepfool", "foolbox"): torch_tasks.deepfool_foolbox,
    ("autoattack", "autoattack"): torch_tasks.autoattack_authors,
    ("autoattack", "torchattacks"): torch_tasks.autoattack_torchattacks,
    ("universal", "art"): torch_tasks.universal_art,
    ("occlusion", "captum"): torch_tasks.occlusion_captum,
    ("occlusion", "torch"): torch_tasks.occlusion_torch,
    ("integrated_gradients", "captum"): torch_tasks.integrated_gradients_captum,
    ("integrated_gradients", "torch"): torch_tasks.integrated_gradients_torch,
    ("dream", "torch"): torch_tasks.dream_torch,
    ("ascent", "torch"): torch_tasks.ascent_torch,
}


def _set_up(
    spec: Spec, device: torch.device, augmentation: Augmentation
) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor], Iterator[Batch]]:
    """Return the network, the function of uint8 images that it is used by, and the batches."""
    model = create_model(spec.model, **literal_options(spec.model_options))
    torch.manual_seed(0)
    net = torch_models.create(spec.model, model.num_classes)
    net = net.to(device, memory_format=memory_format(spec))

    def forward(images: torch.Tensor) -> torch.Tensor:
        return net(images.float().sub_(255 * inputs.MEAN).div_(255 * inputs.STD))

    batches = inputs.batches(spec, model.channels, model.num_classes, augmentation)
    compiled = torch.compile(forward) if spec.torch_compile else forward
    return net, compiled, _on_device(spec, device, batches)


def _on_device(spec: Spec, device: torch.device, batches: Iterator[dict]) -> Iterator[Batch]:
    """Yield images [b, c, h, w] in the layout and labels; the synthetic batch is put there once."""
    last, placed = None, None
    for batch in batches:
        if batch is not last:
            last = batch
            images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)
            labels = torch.from_numpy(batch["label"]).long()
            if device.type == "cuda":
                images, labels = images.pin_memory(), labels.pin_memory()
            images = images.to(device, non_blocking=True, memory_format=memory_format(spec))
            placed = images, labels.to(device, non_blocking=True)
        yield placed


def _computing(spec: Spec, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bfloat16")


def _program(
    spec: Spec, device: torch.device, net: nn.Module, call: Callable, batches: Iterator[Batch]
) -> Program:
    def wait(output: torch.Tensor) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    return Program(
        call=call,
        state=None,
        batches=batches,
        images=spec.batch_size,
        wait=wait,
        lead=inputs.lead(spec),
        facts={"parameters": sum(parameter.numel() for parameter in net.parameters())},
    )
