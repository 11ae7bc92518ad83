import dataclasses
import pickle
import struct

import numpy as np
import pytest

from cnn_jax.data.tfrecord import TFRecordSource, index_records
from cnn_jax.errors import UsageError


@dataclasses.dataclass
class FileInstruction:
    """As tfds.core.shard_utils.FileInstruction, which takes seconds to import."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def crc32c(data):
    """Castagnoli's checksum, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked_crc(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write_tfrecord(path, records):
    with open(path, "wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", masked_crc(length)))
            file.write(record + struct.pack("<I", masked_crc(record)))


def test_the_tests_own_checksum_is_crc32c():
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4


def test_index_gives_offset_and_length_of_each_record(tmp_path):
    write_tfrecord(tmp_path / "shard", [b"abc", b"", b"defgh"])
    np.testing.assert_array_equal(
        index_records(tmp_path / "shard"), [(12, 3), (12 + 3 + 4 + 12, 0), (47, 5)]
    )


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "shard").touch()
    assert index_records(tmp_path / "shard").shape == (0, 2)


def test_source_reads_slices_of_shards_in_order(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_tfrecord(first, [b"a0", b"a1", b"a2"])
    write_tfrecord(second, [b"b0", b"b1"])
    source = TFRecordSource([FileInstruction(first, 1, 2, 3), FileInstruction(second, 0, 1, 2)])
    assert len(source) == 3
    assert [source[i] for i in range(3)] == [b"a1", b"a2", b"b0"]
    assert list(source) == [b"a1", b"a2", b"b0"]
    with pytest.raises(IndexError):
        source[3]


def test_source_survives_pickling_after_use(tmp_path):
    write_tfrecord(tmp_path / "shard", [b"a", b"b"])
    source = TFRecordSource([FileInstruction(tmp_path / "shard", 0, 2, 2)])
    assert source[1] == b"b"
    assert pickle.loads(pickle.dumps(source))[0] == b"a"


@pytest.mark.parametrize("cut", [1, 5, 12, 20])
def test_a_truncated_file_is_named(tmp_path, cut):
    path = tmp_path / "shard"
    write_tfrecord(path, [b"abc", b"defgh"])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UsageError, match=f"damaged TFRecord file {path}"):
        index_records(path)


def test_a_shard_with_lost_records_is_named(tmp_path):
    write_tfrecord(tmp_path / "shard", [b"abc"])
    source = TFRecordSource([FileInstruction(tmp_path / "shard", 0, 2, 2)])
    with pytest.raises(UsageError, match=r"shard has 1 records, dataset_info.json says 2"):
        source[0]
