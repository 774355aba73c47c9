"""N-MNIST in one place: its format, its layout, and all of its recordings read into memory."""

from spikeshot.data.layouts.nmnist import CLASSES, MAX_BYTES, SENSOR_SIZE, list_nmnist, read_nmnist
from spikeshot.data.readers.binary import decode_bin, encode_bin

__all__ = [
    "CLASSES",
    "MAX_BYTES",
    "SENSOR_SIZE",
    "decode_bin",
    "encode_bin",
    "list_nmnist",
    "read_nmnist",
]
