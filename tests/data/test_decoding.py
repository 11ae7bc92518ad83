"""Every mode and depth that Pillow opens, and what becomes of its values."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from cnn_jax.data.decoding import decode, own_channels, read
from cnn_jax.errors import UsageError

RAMP = np.linspace(0, 65535, 6).astype(np.uint16)[None]  # 0, 51, ..., 255 in 8 bits
LEVELS = [0, 51, 102, 153, 204, 255]


def encode(image, file_format="PNG", **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, file_format, **options)
    return file.getvalue()


def png(depth, colour_type, rows, transparent=b""):
    """A PNG file of the given rows of bytes, of depths that Pillow does not write."""

    def chunk(name, content):
        whole = name + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    bits = depth * {0: 1, 2: 3, 4: 2}[colour_type]
    header = struct.pack(
        ">IIBBBBB", len(rows[0]) * 8 // bits, len(rows), depth, colour_type, 0, 0, 0
    )
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", transparent) if transparent else b"")
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


def with_tiff_tags(encoded, tags):
    """A TIFF file of Pillow's with other values of tags that it has."""
    start, content = struct.unpack_from("<I", encoded, 4)[0], bytearray(encoded)
    for entry in range(start + 2, start + 2 + 12 * content[start], 12):
        tag = struct.unpack_from("<H", encoded, entry)[0]
        if tag in tags:
            struct.pack_into("<H", content, entry + 8, tags[tag])
    return bytes(content)


def pixels(encoded, channels):
    """The pixels of the first row."""
    return np.asarray(decode(encoded, channels))[0].tolist()


def big_endian():
    return Image.frombytes("I;16B", (6, 1), RAMP.astype(">u2").tobytes())


def signed_32(*values):
    return encode(np.array([values], np.int32), "TIFF")


def floats(*values):
    return encode(np.array([values], np.float32), "TIFF")


SAMPLE_FORMAT, PHOTOMETRIC = 339, 262
FULL = 2**31 - 1

# what it is, the file, its first row in grey
GREYS = [
    ("1", encode(Image.new("1", (2, 1), 1)), [255, 255]),
    ("L", encode(np.array([[0, 7, 255]], np.uint8)), [0, 7, 255]),
    ("2-bit PNG", png(2, 0, [bytes([0b00_01_10_11])]), [0, 85, 170, 255]),
    ("4-bit PNG", png(4, 0, [bytes([0x0F, 0x78])]), [0, 255, 119, 136]),
    ("16-bit PNG", encode(RAMP), LEVELS),
    ("16-bit TIFF", encode(RAMP, "TIFF"), LEVELS),
    ("compressed TIFF", encode(RAMP, "TIFF", compression="tiff_lzw"), LEVELS),
    ("big-endian TIFF", encode(big_endian(), "TIFF"), LEVELS),
    (
        "16-bit TIFF, white 0",
        with_tiff_tags(encode(RAMP, "TIFF"), {PHOTOMETRIC: 0}),
        LEVELS[::-1],
    ),
    ("16-bit PGM", b"P5\n6 1\n65535\n" + RAMP.astype(">u2").tobytes(), LEVELS),
    ("10-bit PGM", b"P5\n3 1\n1023\n" + np.array([0, 512, 1023], ">u2").tobytes(), [0, 128, 255]),
    ("plain PGM", b"P2\n3 1\n1023\n0 512 1023\n", [0, 128, 255]),
    ("16-bit JPEG 2000", encode(np.tile(RAMP, (8, 1)), "JPEG2000"), LEVELS),
    ("signed 32-bit TIFF", signed_32(0, 2**30, FULL), [0, 128, 255]),
    (
        "unsigned 32-bit TIFF",
        with_tiff_tags(signed_32(0, 2**30, FULL, -1), {SAMPLE_FORMAT: 1}),
        [0, 64, 127, 255],
    ),
    ("black 32-bit TIFF", signed_32(0, 0), [0, 0]),
    ("float TIFF", floats(0, 0.5, 1), [0, 128, 255]),
    ("float TIFF, white 0", with_tiff_tags(floats(0, 1), {PHOTOMETRIC: 0}), [255, 0]),
    ("float PFM", encode(np.array([[0, 0.2, 1]], np.float32), "PPM"), [0, 51, 255]),
]


@pytest.mark.parametrize(
    ("encoded", "expected"), [row[1:] for row in GREYS], ids=[row[0] for row in GREYS]
)
def test_greys_are_scaled_by_the_maximum_of_their_format(encoded, expected):
    assert pixels(encoded, 1) == expected
    assert pixels(encoded, 3) == [[value] * 3 for value in expected]
    assert pixels(encoded, 4) == [[value] * 3 + [255] for value in expected]
    assert own_channels(encoded) == 1


def test_16_bit_greys_keep_their_high_byte():
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert pixels(encode(deep), 1) == [0, 0, 1, 128, 255]


def test_a_16_bit_ramp_of_either_byte_order_is_a_ramp():
    ramp = np.arange(0, 2**16, 128, np.uint16).reshape(8, 64)
    expected = (ramp // 256).astype(np.uint8)
    for encoded in (
        b"P5\n64 8\n65535\n" + ramp.astype(">u2").tobytes(),
        encode(Image.frombytes("I;16B", (64, 8), ramp.astype(">u2").tobytes()), "TIFF"),
        encode(ramp, "TIFF"),
        encode(ramp),
    ):
        np.testing.assert_array_equal(np.asarray(decode(encoded, 1)), expected)


RED, DARK = (200, 100, 50), (13, 128, 255)

COLOURS = [
    ("RGB", encode(Image.new("RGB", (1, 1), RED)), RED),
    ("P", encode(Image.new("RGB", (1, 1), RED).convert("P", palette=Image.Palette.ADAPTIVE)), RED),
    ("CMYK", encode(Image.new("CMYK", (1, 1), (55, 155, 205, 0)), "TIFF"), RED),
    ("YCbCr", encode(Image.new("YCbCr", (1, 1), (100, 128, 133)), "TIFF"), (107, 96, 100)),
    (
        "16-bit PNG",
        png(16, 2, [np.array([13 * 257, 128 * 257, 65535], ">u2").tobytes()]),
        DARK,
    ),
    ("16-bit PPM", b"P6\n1 1\n65535\n" + np.array([3341, 32896, 65535], ">u2").tobytes(), DARK),
]


@pytest.mark.parametrize(
    ("encoded", "expected"), [row[1:] for row in COLOURS], ids=[row[0] for row in COLOURS]
)
def test_colours_are_scaled_by_the_maximum_of_their_format(encoded, expected):
    assert pixels(encoded, 3) == [list(expected)]
    assert pixels(encoded, 4) == [[*expected, 255]]
    luma = np.dot(expected, (0.299, 0.587, 0.114))
    assert abs(pixels(encoded, 1)[0] - luma) < 1
    assert own_channels(encoded) == 3


def shorts(*values):
    return np.array(values, ">u2").tobytes()


def palette(alpha):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    return encode(image, transparency=alpha)


KEY = (0x1234, 0x5678, 0x9ABC)
GREEN = Image.new("RGBA", (1, 1), (0, 200, 0, 51))

# what it is, the file, its first row with alpha, the same on white
TRANSPARENT = [
    ("RGBA", encode(GREEN), [(0, 200, 0, 51)], [(204, 244, 204)]),
    ("LA", encode(Image.new("LA", (1, 1), (0, 51))), [(0, 0, 0, 51)], [(204, 204, 204)]),
    (
        "16-bit LA",
        png(16, 4, [shorts(0x6401, 0x33FF)]),
        [(100, 100, 100, 51)],
        [(224, 224, 224)],
    ),
    (
        "P with an alpha for each colour",
        palette(bytes([51, 255])),
        [(10, 20, 30, 51), (200, 100, 50, 255)],
        [(206, 208, 210), (200, 100, 50)],
    ),
    (
        "P with a transparent colour",
        palette(0),
        [(10, 20, 30, 0), (200, 100, 50, 255)],
        [(255, 255, 255), (200, 100, 50)],
    ),
    (
        "2-bit grey with a transparent value",
        png(2, 0, [bytes([0b00_01_10_11])], shorts(2)),
        [(0, 0, 0, 255), (85, 85, 85, 255), (170, 170, 170, 0), (255, 255, 255, 255)],
        [(0, 0, 0), (85, 85, 85), (255, 255, 255), (255, 255, 255)],
    ),
    (
        "16-bit grey with a transparent value",
        png(16, 0, [shorts(0x1234, 0x1235)], shorts(0x1234)),
        [(0x12, 0x12, 0x12, 0), (0x12, 0x12, 0x12, 255)],
        [(255, 255, 255), (0x12, 0x12, 0x12)],
    ),
    (
        "16-bit RGB with a transparent colour",
        png(16, 2, [shorts(*KEY, 0x1234, 0x5678, 0x9ABD)], shorts(*KEY)),
        [(0x12, 0x56, 0x9A, 0), (0x12, 0x56, 0x9A, 255)],
        [(255, 255, 255), (0x12, 0x56, 0x9A)],
    ),
]


@pytest.mark.parametrize(
    ("encoded", "with_alpha", "on_white"),
    [row[1:] for row in TRANSPARENT],
    ids=[row[0] for row in TRANSPARENT],
)
def test_transparency_is_the_fourth_channel_or_put_on_white(encoded, with_alpha, on_white):
    assert pixels(encoded, 4) == [list(pixel) for pixel in with_alpha]
    np.testing.assert_allclose(pixels(encoded, 3), on_white, atol=1)  # of rounding
    assert own_channels(encoded) == 4


def lab():
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    return ImageCms.applyTransform(Image.new("RGB", (2, 2), RED), transform)


REFUSED = [
    ("floats over 1", floats(0, 300), "floating-point values of 0 to 300 have no maximum"),
    ("floats under 0", floats(-1, 1), "floating-point values of -1 to 1"),
    ("not a number", floats(0, np.nan), "floating-point values of nan to nan"),
    ("negative integers", signed_32(-5, FULL), "integers of -5 to 2147483647 have no black"),
    ("few levels of 32 bits", signed_32(0, 1000), "integers up to 1000 would all be black"),
    ("unknown maximum", encode(RAMP, "IM"), "integers of IM files have no known maximum"),
    (
        "signed bytes",
        encode(np.zeros((1, 2), np.uint8), "TIFF", tiffinfo={SAMPLE_FORMAT: 2}),
        "8-bit values with a sign",
    ),
    ("L*a*b*", encode(lab(), "TIFF"), r"CIE L\*a\*b\* are not converted"),
    ("no image", b"no image", "not an image"),
    ("half an image", encode(np.eye(64, dtype=np.uint8))[:60], "not a readable image"),
]


@pytest.mark.parametrize(
    ("encoded", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_has_no_known_range_is_refused_in_one_line(encoded, reason, channels):
    with pytest.raises(UsageError, match=reason) as refusal:
        decode(encoded, channels)
    assert "\n" not in str(refusal.value)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(UsageError, match="images of 2 channels are not supported; use 1, 3 or 4"):
        decode(encode(np.eye(2, dtype=np.uint8)), 2)


TURNED = [  # orientation tag, the stored pixels as they are shown
    (1, lambda x: x),
    (2, lambda x: x[:, ::-1]),
    (3, lambda x: x[::-1, ::-1]),
    (4, lambda x: x[::-1]),
    (5, lambda x: x.T),
    (6, lambda x: np.rot90(x, -1)),
    (7, lambda x: x[::-1, ::-1].T),
    (8, lambda x: np.rot90(x)),
]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "shown"), TURNED)
def test_orientation_tags_are_applied(orientation, shown, file_format):
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    decoded = decode(encode(stored, file_format, exif=exif, **options), 1)
    np.testing.assert_array_equal(np.asarray(decoded), shown(stored))


def jpeg_with_exif(stored, entries):
    """A JPEG file with TIFF entries (tag, type, count, value) that Pillow would not write."""
    table = struct.pack(">2sHIH", b"MM", 42, 8, len(entries))
    where = len(table) + 12 * len(entries) + 4
    values = b""
    for tag, kind, count, value in entries:
        if len(value) > 4:
            table += struct.pack(">HHII", tag, kind, count, where + len(values))
            values += value
        else:
            table += struct.pack(">HHI4s", tag, kind, count, value)
    exif = b"Exif\0\0" + table + b"\0\0\0\0" + values
    encoded = encode(stored, "JPEG", quality=100)
    return encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + encoded[2:]


TURN = (0x0112, 3, 1, struct.pack(">H", 6))


@pytest.mark.parametrize(
    "strange",
    [
        (0x011A, 10, 1, struct.pack(">ii", -1, 0)),  # XResolution -1/0
        (0x011A, 5, 1, struct.pack(">II", 0xFFFFFFFF, 0)),
        (0x8769, 4, 1, struct.pack(">I", 2**31)),  # a table of tags beyond the end
        (0x0131, 2, 40, b"Software without an end".ljust(40, b"\xff")),
        (0xC4A5, 99, 3, b"abc"),  # a type that does not exist
    ],
    ids=["XResolution", "unsigned", "pointer", "text", "type"],
)
def test_a_strange_exif_tag_beside_the_orientation_is_no_hindrance(strange):
    stored = np.kron(np.arange(6).reshape(2, 3) * 40, np.ones((8, 8))).astype(np.uint8)
    encoded = jpeg_with_exif(stored, sorted([TURN, strange]))
    expected = np.rot90(np.asarray(Image.open(io.BytesIO(encode(stored, "JPEG", quality=100)))), -1)
    np.testing.assert_array_equal(np.asarray(decode(encoded, 1)), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_that_cannot_be_read_turns_nothing():
    stored = np.zeros((8, 16), np.uint8)
    encoded = encode(stored, "JPEG")
    exif = b"Exif\0\0MM\0*\xff\xff\xff\xff no table of tags"
    encoded = encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + encoded[2:]
    assert decode(encoded, 1).size == (16, 8)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*gone\.png: No such file"):
        read(tmp_path / "gone.png", 3)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"broken\.png: not an image"):
        read(tmp_path / "broken.png", 3)
