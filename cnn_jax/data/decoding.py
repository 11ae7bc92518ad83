"""The one way from an image file to pixels, whatever its format, mode and depth.

Values are scaled by the most that the file's format can hold, never by what one image happens to
hold: integers keep their eight highest bits, floating-point numbers are taken as 0..1. What has no
such maximum is refused.
"""

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from cnn_jax.errors import UsageError

# The usual formats are tried before all others, also once others are registered.
Image.preinit()

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode of an image by its number of channels

_UPRIGHT = {  # what undoes each orientation of EXIF
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WIDE = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # modes of more than 8 bits


def decode(encoded: bytes, channels: int, most_pixels: int | None = None) -> Image.Image:
    """Decodes an image file as a person sees it.

    The orientation tag is applied, whatever else EXIF holds. With 1 and 3 channels, transparency is
    put on white; with 4 it is the fourth, 255 (opaque) where the file has none, and the colour
    beneath is the file's. Palettes, CMYK and YCbCr become colours, colours become luma.

    Args:
      encoded: the file's bytes, in any format that Pillow reads.
      channels: 1 for an image of mode "L", 3 for "RGB", 4 for "RGBA"; all hold 8 bits.
      most_pixels: a larger image is refused by its header, before memory is taken for its pixels.

    Raises:
      UsageError: bytes that are no image or only a part of one, and values without a known range:
        negative ones, floating-point ones outside 0..1, CIE L*a*b*; too many pixels.
    """
    if channels not in MODES:
        raise UsageError(f"images of {channels} channels are not supported; use 1, 3 or 4")
    image = _open(encoded)
    width, height = image.size
    if most_pixels is not None and width * height > most_pixels:
        raise UsageError(
            f"the image has {width}x{height} pixels, more than {most_pixels / 1e6:g} million; "
            "make it smaller"
        )
    try:
        image.load()
        orientation = _orientation(image)
        image = _with_8_bits(image, encoded)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if channels != 4:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image if image.mode == MODES[channels] else image.convert(MODES[channels])
        return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
    except UsageError:
        raise
    # Pillow's decoders raise errors of a dozen types on damaged files.
    except Exception as error:
        raise UsageError(f"not a readable image ({error}); replace the file") from error


def read(path: str | Path, channels: int) -> Image.Image:
    """Decodes the image file at a path, see `decode`; errors name the file."""
    try:
        return decode(Path(path).read_bytes(), channels)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give an image file") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def own_channels(encoded: bytes) -> int:
    """The channels of the image itself: 1 for grey, 3 for colour, 4 with transparency.

    Reads the header alone. Raises UsageError for bytes that are no image.
    """
    image = _open(encoded)
    if image.has_transparency_data:
        return 4
    return 1 if image.mode in ("1", "L", *_WIDE) else 3


def _open(encoded: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError as error:
        raise UsageError(
            "not an image in a format that Pillow reads (a phone's HEIC is none); "
            "save it as JPEG or PNG"
        ) from error
    except Exception as error:  # such as a decompression bomb
        raise UsageError(f"not a readable image ({error}); replace the file") from error


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata say nothing against the pixels
        return 1


def _with_8_bits(image: Image.Image, encoded: bytes) -> Image.Image:
    """The image in a mode of 8 bits a channel that Pillow converts to colours rightly."""
    if image.mode == "LAB":
        raise UsageError("colours in CIE L*a*b* are not converted; save the image as RGB")
    if image.mode == "La":
        return image.convert("LA")
    if image.format == "TIFF" and _tiff_tag(image, "SampleFormat") == 2 and image.mode == "L":
        raise UsageError("8-bit values with a sign have no black; save the image as unsigned")
    if image.mode in _WIDE:
        values = np.asarray(image)
        grey = Image.fromarray(_scaled(values, image))
        if "transparency" not in image.info:
            return grey
        return _with_transparent(grey, values == image.info["transparency"])
    if image.format == "PNG" and "transparency" in image.info and image.mode in ("L", "RGB"):
        return _png_colour_key(image, encoded)
    return image


def _scaled(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """Values of a mode of more than 8 bits as uint8, by the maximum of their format."""
    low, high = values.min(), values.max()
    negative = image.format == "TIFF" and _tiff_tag(image, "PhotometricInterpretation") == 0
    if image.mode == "F":
        if not (low >= 0 and high <= 1):  # also NaN
            raise UsageError(
                f"floating-point values of {low:g} to {high:g} have no maximum of their own; "
                "scale them into 0..1"
            )
        return np.rint(255 * (1 - values if negative else values)).astype(np.uint8)
    bits = _bits(image)
    if bits == 32:  # unsigned, which Pillow keeps in signed integers
        values = values.view(np.uint32)
        low, high = values.min(), values.max()
    if low < 0:
        raise UsageError(f"integers of {low} to {high} have no black; shift them to 0 and above")
    if bits > 16 and 0 < high < 2 ** (bits - 8):
        raise UsageError(
            f"integers up to {high} would all be black, as {bits} bits hold up to {2**bits - 1}; "
            "save the image with 16 bits, or scale it"
        )
    scaled = (values >> (bits - 8)).astype(np.uint8)
    return 255 - scaled if negative else scaled


def _bits(image: Image.Image) -> int:
    """The bits of the largest integer that the format can hold, where Pillow's mode has more."""
    if image.format == "TIFF":
        return _tiff_tag(image, "BitsPerSample") - (_tiff_tag(image, "SampleFormat") == 2)
    if image.format in ("PNG", "PPM", "JPEG2000"):  # Pillow scales the latter two to 16 bits
        return 16
    raise UsageError(
        f"integers of {image.format} files have no known maximum; save the image as PNG"
    )


def _tiff_tag(image: Image.Image, name: str) -> int:
    value = image.tag_v2.get(ExifTags.Base[name], 1)
    return value[0] if isinstance(value, tuple) else value


def _with_transparent(image: Image.Image, where: np.ndarray) -> Image.Image:
    alpha = Image.fromarray(np.where(where, 0, 255).astype(np.uint8))
    return Image.merge(image.mode + "A", (*image.split(), alpha))


def _png_colour_key(image: Image.Image, encoded: bytes) -> Image.Image:
    """An image of mode L or RGB with an alpha channel instead of a transparent colour.

    The colour has the file's depth, the pixels 8 bits already.
    """
    depth, key = encoded[24], image.info["transparency"]
    if depth == 16:  # RGB, by its high bytes; decoded as little-endian, the file gives the low ones
        again = Image.open(io.BytesIO(encoded))
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
        pixels = 256 * np.asarray(image, np.int32) + np.asarray(again)
    else:  # pixels of 2 and 4 bits are spread over 0..255
        pixels = np.atleast_3d(np.asarray(image, np.int32)) // (255 // (2**depth - 1))
    return _with_transparent(image, (pixels == key).all(axis=-1))
