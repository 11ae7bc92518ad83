"""Write small .pth files of both of PyTorch's formats, and of what users nest in them.

Run from the repository's root, where torch is installed: `python -m tests.references.make_pth`.
"""

from collections import OrderedDict
from pathlib import Path

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


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    torch.save(state_dict(), FOLDER / "zip.pth")
    torch.save(state_dict(), FOLDER / "stream.pth", _use_new_zipfile_serialization=False)
    wrapped = {f"module.{name}": tensor for name, tensor in state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "best": 0.5}, FOLDER / "checkpoint.pth")
    torch.save(torch.nn.Linear(2, 2), FOLDER / "module.pth")
