"""Random access to the records of TFRecord files, without TensorFlow.

A file is a sequence of records: the length (uint64, little endian), a checksum of the length
(4 bytes), the data, a checksum of the data (4 bytes); see
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

import bisect
import itertools
import mmap
import os
import struct
from collections.abc import Sequence

import numpy as np

from cnn_jax.errors import UsageError

_HEADER = struct.Struct("<Q4x")
_FOOTER_SIZE = 4


def index_records(path: str) -> np.ndarray:
    """Where the records of a TFRecord file are: int64 [n, 2], offset and length in bytes.

    The headers are walked through, the data are neither read nor checked.

    Raises:
      UsageError: the file is damaged, as by an interrupted copy.
    """
    spans = []
    size = os.path.getsize(path)
    if size == 0:
        return np.zeros((0, 2), np.int64)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = 0
        while position + _HEADER.size <= size:
            (length,) = _HEADER.unpack_from(content, position)
            spans.append((position + _HEADER.size, length))
            position += _HEADER.size + length + _FOOTER_SIZE
    if position != size:
        raise UsageError(f"damaged TFRecord file {path}: copy or prepare the data set again")
    return np.array(spans, np.int64)


class TFRecordSource:
    """The records of TFRecord files by number: source[i] is bytes. Picklable and thread safe.

    A file is indexed when a record of it is first asked for, and opened for each read: a thousand
    shards kept open would exceed the usual limit of open files.

    Args:
      files: what to read, in order, each with filename, skip, take and examples_in_shard
        (tfds.core.shard_utils.FileInstruction).
    """

    def __init__(self, files: Sequence):
        self._files = list(files)
        self._ends = list(itertools.accumulate(file.take for file in self._files))
        self._spans = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        index = index.__index__()
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        file = self._files[number]
        position = index - (self._ends[number] - file.take) + file.skip
        offset, length = self._spans_of(file)[position]
        with open(file.filename, "rb", buffering=0) as opened:
            return os.pread(opened.fileno(), length, offset)

    def _spans_of(self, file) -> np.ndarray:
        path = os.fspath(file.filename)
        if path not in self._spans:  # two threads may both index it: the result is the same
            spans = index_records(path)
            if len(spans) != file.examples_in_shard:
                raise UsageError(
                    f"{path} has {len(spans)} records, dataset_info.json says "
                    f"{file.examples_in_shard}: copy or prepare the data set again"
                )
            self._spans[path] = spans
        return self._spans[path]
