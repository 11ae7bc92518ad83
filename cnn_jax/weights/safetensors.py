"""Reading safetensors files into NumPy arrays."""

from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from cnn_jax.errors import UsageError

DTYPES = {
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path: Path) -> dict[str, np.ndarray]:
    """Return name -> array of every tensor of the file.

    The safetensors library checks the header: its length, names, dtypes, and that the tensors
    cover the file without gap or overlap.

    Raises:
      UsageError: the file is damaged, or holds a dtype that is not in DTYPES.
    """
    try:
        tensors = dict(safetensors.deserialize(path.read_bytes()))
    except safetensors.SafetensorError as error:
        raise UsageError(f"{path} is no valid safetensors file ({error}); get it anew") from None
    arrays = {}
    for name, tensor in tensors.items():
        dtype, data = tensor["dtype"], tensor["data"]
        if dtype not in DTYPES:
            raise UsageError(f"{path}: {name} is {dtype}; convert it to one of {', '.join(DTYPES)}")
        arrays[name] = np.frombuffer(data, DTYPES[dtype]).reshape(tensor["shape"])
    return arrays
