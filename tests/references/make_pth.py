"""Write small .pth files of both of PyTorch's formats, and of what users nest in them.

Run from the repository's root, where torch is installed: `python -m tests.references.make_pth`.
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).with_name("pth")
DTYPES = ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def state_dict() -> OrderedDict:
    """Return tensors of many kinds; their values count up, so that the tests know them."""
    shared = torch.arange(24, dtype=torch.float32)
    tensors = OrderedDict(
        plain=torch.arange(6, dtype=torch.float32).reshape(2, 3),
        transposed=shared.reshape(4, 6).t(),
        shared=shared[10:14],
        every_second=shared[::2],
        scalar=torch.tensor(7),
        empty=torch.empty(0, 3),
        parameter=torch.nn.Parameter(torch.arange(3.0)),
        channels_last=torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    )
    for name in [
        "float64",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    ]:
        tensors[name] = torch.arange(2).to(getattr(torch, name))
    tensors._metadata = OrderedDict({"": {"version": 1}})
    return tensors


def network(value: float) -> torch.nn.Module:
    """Return a convolution, a norm and a dense layer, all of this value."""
    net = torch.nn.Sequential(
        OrderedDict(
            conv=torch.nn.Conv2d(1, 2, 1), norm=torch.nn.BatchNorm2d(2), fc=torch.nn.Linear(2, 3)
        )
    )
    for tensor in net.state_dict().values():
        tensor.fill_(value)
    return net


def habits() -> dict[str, object]:
    """Return what training scripts save: file -> object. Weights are 1, their moving average 2."""
    net, average = network(1), network(2)
    weights = net.state_dict()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    args = argparse.Namespace(lr=0.1, output_dir=Path("runs"), device=torch.device("cpu"))
    ema = torch.optim.swa_utils.AveragedModel(average)
    return {
        "data_parallel": torch.nn.DataParallel(net).state_dict(),
        "compiled_parallel": {f"_orig_mod.module.{name}": x for name, x in weights.items()},
        "parallel_compiled": {f"module._orig_mod.{name}": x for name, x in weights.items()},
        "features_parallel": {n.replace("norm.", "norm.module."): x for n, x in weights.items()},
        "epoch_inside": weights | {"epoch": 7},
        "model_state_dict": {"epoch": 7, "loss": torch.tensor(0.5), "model_state_dict": weights},
        "net": {"net": weights, "acc": np.float64(91.5), "best": np.array([1.0, 2.0])},
        "ema": {"model": weights, "ema": {"decay": 0.9, "module": average.state_dict()}},
        "ema_of_parameters": {
            "model": weights,
            "ema": {"shadow": dict(average.named_parameters())},
        },
        "lightning": {
            "epoch": 3,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": {f"model.{name}": x for name, x in weights.items()}
            | {"criterion.weight": torch.ones(3)},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_k_models": {}}},
            "optimizer_states": [optimizer.state_dict()],
            "lr_schedulers": [schedule.state_dict()],
            "hyper_parameters": {"lr": 0.1, "sizes": {1, 2}, "path": Path("runs")},
        },
        "torchvision": {  # references/classification/train.py
            "model": weights,
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": schedule.state_dict(),
            "epoch": 7,
            "args": args,
            "model_ema": ema.state_dict(),
            "scaler": {"scale": 65536.0, "_growth_tracker": 0},
        },
        "timm": {  # timm.utils.CheckpointSaver
            "epoch": 7,
            "arch": "resnet18",
            "state_dict": weights,
            "optimizer": optimizer.state_dict(),
            "version": 2,
            "args": args,
            "state_dict_ema": average.state_dict(),
            "metric": np.float32(91.5),
        },
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, saved in habits().items():
        torch.save(saved, FOLDER / f"{name}.pth")
    torch.save(state_dict(), FOLDER / "zip.pth")
    torch.save(state_dict(), FOLDER / "stream.pth", _use_new_zipfile_serialization=False)
    wrapped = {f"module.{name}": tensor for name, tensor in state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "best": 0.5}, FOLDER / "checkpoint.pth")
    torch.save(torch.nn.Linear(2, 2), FOLDER / "module.pth")
