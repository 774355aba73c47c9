"""Pictures: grey images from files, and their size changed by the mean over areas."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from spikeshot.errors import DataError

MAX_SIDE = 8_192  # pixels: no photograph of a data set is larger, and a bomb is


def decode_grey(raw: bytes, name: str) -> NDArray[np.uint8]:
    """Return a PNG or JPEG as grey values [height, width] of 0..255, upright.

    Raises `DataError`, naming the file `name`, for anything else and for an absurd size.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG")) as picture:
            if max(picture.size) > MAX_SIDE:
                raise ValueError(f"{picture.size[0]} x {picture.size[1]} pixels")
            grey = np.array(ImageOps.exif_transpose(picture).convert("L"))
    except Exception as error:  # a damaged picture fails in many ways
        known = not isinstance(error, UnidentifiedImageError)  # its text tells an address in memory
        raise DataError(
            f"{name}: no readable picture ({error if known else 'another kind of file'}); expected "
            f"PNG or JPEG, at most {MAX_SIDE} pixels a side. Fetch it again."
        ) from None
    return grey


def require_contrast(grey: NDArray[np.uint8], name: str) -> None:
    """Raise `DataError` for a picture of one grey value, which no event camera sees."""
    if grey.size == 0 or grey.min() == grey.max():
        raise DataError(
            f"{name}: every pixel has one grey value; expected a picture that shows something. "
            "Remove it, or fetch it again."
        )


def area_mean(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return images [n, H, W] as [n, height, width]; each pixel is the mean over its area."""
    rows, columns = _shares(images.shape[1], height), _shares(images.shape[2], width)
    small = np.empty((len(images), height, width), np.uint8)
    for i, image in enumerate(images):
        small[i] = np.rint(rows @ image.astype(np.float64) @ columns.T)
    return small


def _shares(n: int, size: int) -> NDArray[np.float64]:
    """Return [size, n]: the share of each of `n` old pixels in each of `size` new ones."""
    edges = np.linspace(0, n, size + 1)
    left, right = edges[:-1, None], edges[1:, None]
    inside = np.minimum(right, np.arange(1, n + 1)) - np.maximum(left, np.arange(n))
    shares: NDArray[np.float64] = np.maximum(inside, 0) / (right - left)
    return shares
