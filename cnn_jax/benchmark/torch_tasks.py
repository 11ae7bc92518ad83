"""The tasks in PyTorch: the same work as in jax_tasks.py, on the same batches."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Iterator

import torch
from torch import nn

from cnn_jax.benchmark import inputs, torch_attacks, torch_models, torch_pictures
from cnn_jax.benchmark.jax_tasks import LEARNING_RATE
from cnn_jax.benchmark.program import Program
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.torch_layout import memory_format
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.models import create_model
from cnn_jax.training.config import TrainConfig, literal_options

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


TASKS: dict[tuple[str, str], Callable[[Spec, torch.device], Program]] = {
    ("train", "torch"): train,
    ("inference", "torch"): inference,
    ("pgd", "torchattacks"): torch_attacks.pgd_torchattacks,
    ("pgd", "foolbox"): torch_attacks.pgd_foolbox,
    ("deepfool", "adv_lib"): torch_attacks.deepfool_adv_lib,
    ("deepfool", "foolbox"): torch_attacks.deepfool_foolbox,
    ("autoattack", "autoattack"): torch_attacks.autoattack_authors,
    ("autoattack", "torchattacks"): torch_attacks.autoattack_torchattacks,
    ("universal", "art"): torch_attacks.universal_art,
    ("occlusion", "captum"): torch_pictures.occlusion_captum,
    ("occlusion", "torch"): torch_pictures.occlusion_torch,
    ("integrated_gradients", "captum"): torch_pictures.integrated_gradients_captum,
    ("integrated_gradients", "torch"): torch_pictures.integrated_gradients_torch,
    ("dream", "torch"): torch_pictures.dream_torch,
    ("ascent", "torch"): torch_pictures.ascent_torch,
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
