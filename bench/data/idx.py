"""IDX files, the format of the MNIST family, that a user has on disk.

Format: http://yann.lecun.com/exdb/mnist/ — two zero bytes, a type byte (8: unsigned byte), the
number of dimensions, each dimension as a big-endian 32-bit number, then the values.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from bench.data.splits import Dataset, Split, stratify
from bench.errors import SpecError
from bench.files import find_path
from bench.registry import dataset

UNSIGNED_BYTE = 8
PARTS = {"train": "train", "test": "t10k"}


@dataset("idx")
def idx(path: str) -> Dataset:
    """The four files train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-... in PATH, or .gz.

    Pixels are scaled to 0..1; 10 % of the training examples are kept for tuning.
    """
    root = find_path(path)
    if not root.is_dir():
        raise SpecError(f"idx:{path} is not a folder with IDX files.")
    train, test = (_read_split(root, prefix) for prefix in PARTS.values())
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise SpecError(f"idx:{path}: training and test images differ in size.")
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    kept, held = stratify(train.labels, len(train) // 10)
    return Dataset(
        f"idx:{path}",
        Split(train.inputs[kept], train.labels[kept]),
        Split(train.inputs[held], train.labels[held]),
        test,
        classes,
    )


def _read_split(root: Path, prefix: str) -> Split:
    images = read_idx(_find(root, f"{prefix}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_find(root, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        raise SpecError(f"{root}: {len(images)} {prefix} images but {len(labels)} labels.")
    inputs = torch.from_numpy(images[:, None].astype(np.float32) / 255)
    return Split(inputs, torch.from_numpy(labels.astype(np.int64)))


def _find(root: Path, name: str) -> Path:
    spellings = (name, f"{name}.gz", name.replace("-idx", ".idx"))
    for spelling in spellings:
        if (root / spelling).is_file():
            return root / spelling
    raise SpecError(f"{root} has no file {name} (or {name}.gz).")


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """Return the array in an IDX file; raise SpecError if it is malformed or cut short."""
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise SpecError(f"{file} cannot be read: {error}") from None
    header = 4 + 4 * dimensions
    if len(raw) < header or raw[:2] != b"\0\0":
        raise SpecError(f"{file} is not an IDX file: it must begin with two zero bytes.")
    kind, count = raw[2], raw[3]
    if kind != UNSIGNED_BYTE or count != dimensions:
        raise SpecError(
            f"{file} holds {count} dimensions of type {kind:#x}; "
            f"expected {dimensions} of unsigned bytes ({UNSIGNED_BYTE:#x})."
        )
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    values = np.frombuffer(raw, dtype=np.uint8, offset=header)
    if values.size != int(np.prod(shape, dtype=np.int64)) or values.size == 0:
        raise SpecError(f"{file} announces the shape {shape} but holds {values.size} values.")
    return values.reshape(shape)
