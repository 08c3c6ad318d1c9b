"""Data sets: fixed splits of what is embedded, and what a user has on disk."""

import gzip
import itertools
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench import SpecError, registry
from bench.cache import cache_folder
from bench.data import Dataset, Split, load_dataset
from bench.data.splits import divide, stratify

EMBEDDED = ("digits", "mnist1d")
Pictures = Callable[..., Path]


def splits(data: Dataset) -> tuple[Split, Split, Split]:
    return data.train, data.tune, data.test


def same(one: Dataset, other: Dataset) -> bool:
    return all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels)
        for a, b in zip(splits(one), splits(other), strict=True)
    )


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_dataset(text)
    return str(caught.value)


# Embedded data


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [("digits", (1000, 200, 597), (1, 8, 8)), ("mnist1d", (4000, 1000, 5000), (1, 40))],
)
def test_embedded_data_have_the_sizes_that_they_announce(
    name: str, sizes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    data = load_dataset(name)
    assert tuple(map(len, splits(data))) == sizes
    assert data.shape == shape
    assert data.classes == 10
    assert data.name == name
    assert all(split.inputs.dtype == torch.float32 for split in splits(data))
    assert all(split.labels.dtype == torch.int64 for split in splits(data))
    assert "{:,} train, {:,} tune, {:,} test".format(*sizes) in str(
        registry.find("dataset", name)[0].summary
    )


def test_mnist1d_can_tell_half_a_percent_of_accuracy_from_chance() -> None:
    assert len(load_dataset("mnist1d").test) >= 5_000


@pytest.mark.parametrize("name", EMBEDDED)
def test_no_example_is_in_two_splits(name: str) -> None:
    rows = np.concatenate([split.inputs.flatten(1).numpy() for split in splits(load_dataset(name))])
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_class_has_its_share_of_every_split(name: str) -> None:
    data = load_dataset(name)
    counts = torch.stack([split.labels.bincount(minlength=10) for split in splits(data)]).double()
    share = counts.sum(0) / counts.sum()
    expected = share * counts.sum(1, keepdim=True)
    assert (counts - expected).abs().max() < 2


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_are_the_same_each_time(name: str) -> None:
    assert same(load_dataset(name), load_dataset(name))


def test_mnist1d_is_generated_from_its_seed() -> None:
    # Values of one generation: to generate it a second time here would take 10 s.
    data = load_dataset("mnist1d")
    assert data.train.labels[:12].tolist() == [4, 2, 3, 9, 4, 7, 9, 8, 4, 6, 6, 8]
    assert data.test.labels[:12].tolist() == [2, 4, 4, 1, 6, 6, 8, 0, 8, 0, 5, 5]
    expected = torch.tensor([-0.0867, -0.4083, -1.5831, -1.4629])
    torch.testing.assert_close(data.train.inputs[0, 0, :4], expected, atol=1e-3, rtol=0)


def test_data_do_not_depend_on_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = load_dataset("digits")
    monkeypatch.setenv("PARETOGRID_CACHE", str(tmp_path))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    anew = load_dataset("digits")
    assert torch.equal(torch.rand(3), expected), "making data must not move the generator"
    assert same(cached, anew)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    data = load_dataset("digits")
    found = {
        (tuple((image * 16).int().flatten().tolist()), int(label))
        for split in splits(data)
        for image, label in zip(split.inputs, split.labels, strict=True)
    }
    wanted = zip(pixels.astype(int).tolist(), labels, strict=True)
    assert found == {(tuple(image), int(label)) for image, label in wanted}


@pytest.mark.parametrize("kept", [0, 1, 10, 1000, -5])
def test_a_damaged_cache_is_made_again(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_dataset("digits")
    monkeypatch.setenv("PARETOGRID_CACHE", str(tmp_path))
    load_dataset("digits")
    (file,) = (cache_folder() / "data").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    assert same(load_dataset("digits"), expected)
    assert [file] == list((cache_folder() / "data").iterdir())
    assert len(file.read_bytes()) == len(whole)


# Division


@pytest.mark.parametrize("held", [0, 1, 7, 40, 99, 100])
def test_a_division_keeps_every_row_once(held: int) -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    kept_rows, held_rows = stratify(labels, held)
    assert len(held_rows) == held
    assert sorted([*kept_rows.tolist(), *held_rows.tolist()]) == list(range(100))
    shares = labels[held_rows].bincount(minlength=3).double() - held * torch.tensor([0.6, 0.3, 0.1])
    assert shares.abs().max() <= 1


def test_a_division_mixes_the_order_within_a_class() -> None:
    _, held = stratify(torch.zeros(100, dtype=torch.int64), 50)
    assert held.tolist() not in ([*range(50)], [*range(50, 100)])
    assert held.tolist() == stratify(torch.zeros(100, dtype=torch.int64), 50)[1].tolist()


def test_the_three_parts_of_a_division_do_not_meet() -> None:
    labels = torch.arange(90) % 3
    data = divide("x", torch.arange(90), labels, tune=9, test=21, classes=3)
    rows = [set(split.inputs.tolist()) for split in splits(data)]
    assert [len(part) for part in rows] == [60, 9, 21]
    assert set.union(*rows) == set(range(90))
    assert all(torch.equal(split.inputs % 3, split.labels) for split in splits(data))


def test_inputs_and_labels_of_different_length_are_refused() -> None:
    with pytest.raises(SpecError, match="3 inputs but 2 of labels"):
        Split(torch.zeros(3, 1), torch.zeros(2))


def test_a_data_set_is_taken_as_it_is(make_data: Callable[..., Dataset]) -> None:
    data = make_data(4)
    assert load_dataset(data) is data


def test_a_number_is_no_data_set() -> None:
    value: Any = 64
    with pytest.raises(SpecError, match="named by text in quotes or a Dataset, got 64"):
        load_dataset(value)


# Image folders


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Write pictures, each of one brightness of its own, to a folder; return the root."""

    def write(
        place: str, count: int = 10, size: tuple[int, int] = (6, 4), mode: str = "L", first: int = 0
    ) -> Path:
        folder = tmp_path / "images" / place
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            value = number if mode == "L" else (number, 100, 200)
            Image.new(mode, size, value).save(folder / f"{mode}-{number:03}.png")
        return tmp_path / "images"

    return write


def test_an_image_folder_is_divided_into_three_splits(pictures: Pictures) -> None:
    pictures("cat", 60)
    root = pictures("dog", 40, first=100)
    data = load_dataset(f"folder:{root}")
    assert tuple(map(len, splits(data))) == (70, 10, 20)
    assert (data.classes, data.shape, data.name) == (2, (1, 4, 6), f"folder:{root}")
    values = [(split.inputs[:, 0, 0, 0] * 255).round().int().tolist() for split in splits(data)]
    assert sorted(itertools.chain(*values)) == [*range(60), *range(100, 140)]
    # Classes are numbered by name: cats are 0, dogs, which are brighter, 1.
    for split, brightness in zip(splits(data), values, strict=True):
        assert split.labels.tolist() == [int(value >= 100) for value in brightness]
    assert data.test.labels.bincount().tolist() == [12, 8]
    assert same(data, load_dataset(f"folder:{root}"))


def test_an_image_folder_with_train_and_test_keeps_them_apart(pictures: Pictures) -> None:
    for number, name in enumerate(("cat", "dog")):
        pictures(f"train/{name}", 20, first=100 * number)
        root = pictures(f"test/{name}", 5, first=100 * number + 50)
    data = load_dataset(f"folder:{root}")
    assert tuple(map(len, splits(data))) == (36, 4, 10)
    values = (data.test.inputs[:, 0, 0, 0] * 255).round().int().tolist()
    assert values == [*range(50, 55), *range(150, 155)]
    assert data.test.labels.tolist() == [0] * 5 + [1] * 5


def test_pixels_are_scaled_to_one_and_colours_come_first(pictures: Pictures) -> None:
    pictures("cat", 10, mode="RGB")
    data = load_dataset(f"folder:{pictures('dog', 10, mode='RGB')}")
    assert data.shape == (3, 4, 6)
    assert data.train.inputs.dtype == torch.float32
    assert torch.allclose(data.train.inputs[:, 1], torch.tensor(100 / 255))
    assert torch.allclose(data.train.inputs[:, 2], torch.tensor(200 / 255))


def test_a_grey_picture_among_coloured_ones_becomes_coloured(pictures: Pictures) -> None:
    pictures("cat", 10, mode="RGB")
    root = pictures("dog", 10, first=50)
    data = load_dataset(f"folder:{root}")
    assert data.shape == (3, 4, 6)
    grey = data.train.inputs[data.train.labels == 1]
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize("grey", ["train", "test"])
def test_grey_pictures_in_one_of_train_and_test_become_coloured(
    pictures: Pictures, grey: str
) -> None:
    for name in ("cat", "dog"):
        for part in ("train", "test"):
            root = pictures(f"{part}/{name}", 10, mode="L" if part == grey else "RGB")
    data = load_dataset(f"folder:{root}")
    assert {split.inputs.shape[1] for split in splits(data)} == {3}


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_pictures_of_16_bits_keep_their_brightness(
    pictures: Pictures, tmp_path: Path, kind: str
) -> None:
    root = pictures("cat", 5, size=(4, 4))
    (root / "dog").mkdir()
    for number in range(5):
        pixels = np.full((4, 4), 32_768, dtype=np.uint16)
        Image.fromarray(pixels).save(root / "dog" / f"{number}.{kind}")
    for size in (0, 2):
        data = load_dataset(f"folder('{root}', size={size})")
        dogs = torch.cat([split.inputs[split.labels == 1] for split in splits(data)])
        assert torch.allclose(dogs, torch.tensor(32_768 / 65_535))


def test_pictures_of_different_sizes_are_refused_with_the_remedy(pictures: Pictures) -> None:
    pictures("cat", 10, size=(6, 4))
    root = pictures("dog", 10, size=(8, 8))
    message = refusal(f"folder:{root}")
    assert message.startswith(f"{root} has images of 2 sizes, such as [(4, 6), (8, 8)]")
    remedy = f"folder('{root}', size=32)"
    assert remedy in message
    assert load_dataset(remedy).shape == (1, 32, 32)


def test_train_and_test_of_different_sizes_are_refused_with_the_remedy(pictures: Pictures) -> None:
    for name in ("cat", "dog"):
        pictures(f"train/{name}", size=(6, 4))
        root = pictures(f"test/{name}", size=(8, 8))
    message = refusal(f"folder:{root}")
    assert message.startswith(f"folder:{root}: images in train/ and test/ differ in size")
    remedy = f"folder('{root}', size=32)"
    assert remedy in message
    data = load_dataset(remedy)
    assert data.shape == (1, 32, 32)
    assert data.name == f"folder('{root}', size=32)"


def test_size_must_not_be_negative(pictures: Pictures) -> None:
    assert "size must be 0 or more, got -1" in refusal("folder('anywhere', size=-1)")


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert refusal(f"folder:{absent}").startswith(f"folder:{absent} is not a folder")


def test_a_folder_of_one_class_is_named(pictures: Pictures) -> None:
    root = pictures("cat")
    assert refusal(f"folder:{root}").startswith(f"{root} has 1 sub-folders; it needs one for each")


def test_a_class_of_too_few_images_is_named(pictures: Pictures) -> None:
    pictures("cat", 10)
    root = pictures("dog", 4)
    (root / "dog" / "notes.txt").write_text("not an image")
    assert refusal(f"folder:{root}") == f"{root / 'dog'} has 4 images; a class needs at least 5."
    pictures("dog", 5)
    assert load_dataset(f"folder:{root}").classes == 2


@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("test", "train")])
def test_a_class_that_only_one_of_train_and_test_has_is_refused(
    pictures: Pictures, part: str, other: str
) -> None:
    for name in ("cat", "dog", "owl"):
        pictures(f"{part}/{name}")
        root = pictures(f"{other}/{name}")
    shutil.rmtree(root / other / "owl")
    assert refusal(f"folder:{root}").startswith(f"folder:{root}: train/ and test/ must have")


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"not a picture",
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:33] + raw[37:],
        lambda raw: raw[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + raw[24:],
    ],
    ids=["text", "empty", "cut short", "chunk without its length", "immense"],
)
def test_a_broken_image_is_named(pictures: Pictures, damage: Callable[[bytes], bytes]) -> None:
    pictures("cat", size=(40, 40))
    root = pictures("dog", size=(40, 40))
    file = root / "dog" / "L-003.png"
    file.write_bytes(damage(file.read_bytes()))
    assert refusal(f"folder:{root}").startswith(f"{file} is not a readable image: ")


def test_an_image_of_floating_point_pixels_is_named(pictures: Pictures) -> None:
    pictures("cat")
    root = pictures("dog")
    file = root / "dog" / "deep.tiff"
    Image.fromarray(np.ones((4, 6), dtype=np.float32)).save(file)
    assert f"{file} is not a readable image: floating-point pixels" in refusal(f"folder:{root}")


# IDX files


def idx_bytes(values: np.ndarray) -> bytes:
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


def examples(count: int, first: int, size: tuple[int, int] = (3, 2)) -> np.ndarray:
    """Make images of one brightness each; brightness modulo 4 is the class."""
    return np.tile(np.arange(first, first + count)[:, None, None], (1, *size))


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Write the four files of a small data set: 40 examples to train on and 20 to test."""
    root = tmp_path / "mnist"
    root.mkdir()
    for prefix, images in (("train", examples(40, 0)), ("t10k", examples(20, 100))):
        (root / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (root / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(images[:, 0, 0] % 4))
    return root


def assert_whole(data: Dataset) -> None:
    assert tuple(map(len, splits(data))) == (36, 4, 20)
    assert (data.classes, data.shape) == (4, (1, 3, 2))
    brightness = [(split.inputs[:, 0, 0, 0] * 255).round().long() for split in splits(data)]
    assert sorted(torch.cat(brightness).tolist()) == [*range(40), *range(100, 120)]
    assert brightness[2].tolist() == list(range(100, 120))
    for split, values in zip(splits(data), brightness, strict=True):
        assert torch.equal(split.labels, values % 4)


def test_idx_files_are_read(mnist: Path) -> None:
    data = load_dataset(f"idx:{mnist}")
    assert_whole(data)
    assert data.name == f"idx:{mnist}"
    assert same(data, load_dataset(f"idx:{mnist}"))


def test_compressed_idx_files_are_read(mnist: Path) -> None:
    for file in list(mnist.iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert_whole(load_dataset(f"idx:{mnist}"))


def test_idx_files_spelled_with_a_dot_are_read(mnist: Path) -> None:
    for file in list(mnist.iterdir()):
        file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    assert_whole(load_dataset(f"idx:{mnist}"))


def test_an_absent_idx_folder_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert refusal(f"idx:{absent}") == f"idx:{absent} is not a folder with IDX files."


@pytest.mark.parametrize("part", ["train-images-idx3", "train-labels-idx1", "t10k-labels-idx1"])
def test_an_absent_idx_file_is_named_with_its_folder(mnist: Path, part: str) -> None:
    name = f"{part}-ubyte"
    (mnist / name).unlink()
    assert refusal(f"idx:{mnist}") == f"{mnist} has no file {name} (or {name}.gz)."


@pytest.mark.parametrize("start", [b"", b"\0\0\x08", b"\x1f\x8b\x08\x03", b"PK\x03\x04"])
def test_a_file_with_a_wrong_beginning_is_named(mnist: Path, start: bytes) -> None:
    file = mnist / "train-images-idx3-ubyte"
    file.write_bytes(start + file.read_bytes()[4:] if len(start) == 4 else start)
    assert refusal(f"idx:{mnist}").startswith(f"{file} is not an IDX file")


def test_a_file_of_another_value_type_is_named(mnist: Path) -> None:
    file = mnist / "train-images-idx3-ubyte"
    file.write_bytes(b"\0\0\x0d\x03" + file.read_bytes()[4:])
    assert refusal(f"idx:{mnist}") == (
        f"{file} holds 3 dimensions of type 0xd; expected 3 of unsigned bytes (0x8)."
    )


def test_labels_in_the_place_of_images_are_named(mnist: Path) -> None:
    file = mnist / "t10k-images-idx3-ubyte"
    file.write_bytes((mnist / "t10k-labels-idx1-ubyte").read_bytes())
    assert f"{file} holds 1 dimensions of type 0x8; expected 3" in refusal(f"idx:{mnist}")


def test_a_label_file_cut_short_is_named_in_the_error(mnist: Path) -> None:
    file = mnist / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    message = f"{file} announces the shape (40,) but holds 39 values."
    assert refusal(f"idx:{mnist}") == message


def test_a_file_with_bytes_left_over_is_named(mnist: Path) -> None:
    file = mnist / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes() + b"\0")
    message = f"{file} announces the shape (20, 3, 2) but holds 121 values."
    assert refusal(f"idx:{mnist}") == message


def test_a_file_of_no_examples_is_named(mnist: Path) -> None:
    file = mnist / "t10k-labels-idx1-ubyte"
    file.write_bytes(idx_bytes(np.zeros(0)))
    assert refusal(f"idx:{mnist}") == f"{file} announces the shape (0,) but holds 0 values."


@pytest.mark.parametrize("damage", ["cut short", "not compressed", "changed"])
def test_a_damaged_compressed_file_is_named(mnist: Path, damage: str) -> None:
    plain = mnist / "train-images-idx3-ubyte"
    file = plain.with_name(f"{plain.name}.gz")
    packed = bytearray(gzip.compress(plain.read_bytes()))
    if damage == "cut short":
        packed = packed[:-12]
    elif damage == "not compressed":
        packed = bytearray(plain.read_bytes())
    else:
        packed[len(packed) // 2] ^= 0xFF
    file.write_bytes(packed)
    plain.unlink()
    assert refusal(f"idx:{mnist}").startswith(f"{file} cannot be read: ")


@pytest.mark.parametrize(("prefix", "count"), [("train", 40), ("t10k", 20)])
def test_labels_and_images_of_different_length_are_refused(
    mnist: Path, prefix: str, count: int
) -> None:
    (mnist / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(count - 1)))
    message = f"{mnist}: {count} {prefix} images but {count - 1} labels."
    assert refusal(f"idx:{mnist}") == message


def test_train_and_test_images_of_different_size_are_refused(mnist: Path) -> None:
    images = examples(20, 100, size=(4, 4))
    (mnist / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images))
    assert refusal(f"idx:{mnist}") == f"idx:{mnist}: training and test images differ in size."
