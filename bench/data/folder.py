"""Image folders that a user has on disk: one sub-folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from bench.data.splits import Dataset, Split, divide, stratify
from bench.errors import SpecError
from bench.files import find_path
from bench.registry import dataset
from bench.spec import Range

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
LEAST_PER_CLASS = 5


@dataset("folder")
def folder(path: str, size: Annotated[int, Range(0)] = 0) -> Dataset:
    """Images in PATH/<class>/*, or in PATH/train/<class>/* and PATH/test/<class>/*.

    Pixels are scaled to 0..1. `size` resizes every image to size×size; without it all images
    must be equally large. Without `test/`, 20 % of the examples become the test split; 10 % of
    the training examples are kept for tuning.
    """
    root = find_path(path)
    if not root.is_dir():
        raise SpecError(f"folder:{path} is not a folder. It needs one sub-folder for each class.")
    divided = (root / "train").is_dir() and (root / "test").is_dir()
    classes = _class_names(root / "train" if divided else root)
    train = _read(root / "train" if divided else root, classes, size)
    name = f"folder({path!r}, size={size})" if size else f"folder:{path}"
    count = len(train)
    if not divided:
        tune = max(len(classes), count // 10)
        return divide(
            name, train.inputs, train.labels, tune=tune, test=count // 5, classes=len(classes)
        )
    if _class_names(root / "test") != classes:
        raise SpecError(f"{name}: train/ and test/ must have sub-folders of the same names.")
    test = _read(root / "test", classes, size)
    if len({train.inputs.shape[1], test.inputs.shape[1]}) > 1:  # one of them is all grey
        train, test = _coloured(train), _coloured(test)
    if test.inputs.shape[1:] != train.inputs.shape[1:]:
        raise SpecError(
            f"{name}: images in train/ and test/ differ in size; give size=, "
            f"as in folder('{path}', size=32)."
        )
    kept, held = stratify(train.labels, max(len(classes), count // 10))
    return Dataset(
        name,
        Split(train.inputs[kept], train.labels[kept]),
        Split(train.inputs[held], train.labels[held]),
        test,
        len(classes),
    )


def _coloured(split: Split) -> Split:
    return Split(split.inputs.expand(-1, 3, -1, -1).contiguous(), split.labels)


def _class_names(root: Path) -> list[str]:
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if len(found) < 2:
        raise SpecError(
            f"{root} has {len(found)} sub-folders; it needs one for each class, two at least."
        )
    return found


def _read(root: Path, classes: list[str], size: int) -> Split:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(file for file in (root / name).glob("*") if file.suffix.lower() in IMAGES)
        if len(files) < LEAST_PER_CLASS:
            raise SpecError(
                f"{root / name} has {len(files)} images; a class needs at least {LEAST_PER_CLASS}."
            )
        images += [_read_image(file, size) for file in files]
        labels += [label] * len(files)
    colours = {image.shape[0] for image in images}
    if colours == {1, 3}:  # a grey picture among coloured ones
        images = [np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image for image in images]
    shapes = {image.shape[1:] for image in images}
    if len(shapes) > 1:
        raise SpecError(
            f"{root} has images of {len(shapes)} sizes, such as {sorted(shapes)[:2]}; "
            f"give size=, as in folder('{root}', size=32)."
        )
    return Split(torch.from_numpy(np.stack(images)), torch.tensor(labels))


def _read_image(file: Path, size: int) -> np.ndarray:
    """Return the picture as float32 of shape (channels, height, width) in 0..1."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode == "F":
                raise ValueError("floating-point pixels have no known range")
            deep = image.mode.startswith("I")  # 16 bits, which convert("L") would cut at 255
            if deep:
                picture = Image.fromarray(np.asarray(image, dtype=np.float32))
            else:
                picture = image.convert("L" if image.mode in ("1", "L") else "RGB")
    except Exception as error:  # decoders fail in many ways on damaged files
        raise SpecError(f"{file} is not a readable image: {error}") from None
    if size:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.float32) / (65_535 if deep else 255)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
