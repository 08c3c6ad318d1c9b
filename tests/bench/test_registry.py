"""How a name leads to a factory, also in a user's own files."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bench import Refusal, SpecError, Subject, registry
from bench.data import Dataset, load_dataset
from bench.files import load_file
from bench.subject import as_subject

PLUGIN = '''
import dataclasses
from typing import Annotated

import torch

from bench import Subject, dataset, model, technique
from bench.data import Dataset, Split
from bench.spec import Range


@dataset("ramps")
def ramps(count: int = 6) -> Dataset:
    split = Split(torch.arange(count * 4.0).reshape(count, 4), torch.arange(count) % 2)
    return Dataset("ramps", split, split, split, 2)


@model("tiny")
def tiny(width: Annotated[int, Range(1)] = 2):
    """A linear layer
    on four values.

    More about it.
    """
    return torch.nn.Linear(4, width), torch.ones(3, 4)


@technique("scale", stage="execution", realization="packed", devices=("cpu",))
def scale(subject: Subject, *, factor: float) -> Subject:
    """Weights times a factor."""
    module = torch.nn.Linear(4, 2)
    module.load_state_dict({k: v * factor for k, v in subject.module.state_dict().items()})
    return dataclasses.replace(subject, module=module)


def plain(subject, amount=1, *rest, **options):
    return subject.with_note(f"plain {amount}")
'''


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    """Forget what a test registered and imported."""
    entries, folders = dict(registry._entries), list(sys.path)
    yield
    registry._entries.clear()
    registry._entries.update(entries)
    sys.path[:] = folders
    for name in [name for name in sys.modules if name.startswith("paretogrid_file_")]:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a Python file; return its path."""

    def write_file(text: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write_file


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(SpecError) as caught:
        act()
    return str(caught.value)


def test_the_built_ins_are_there() -> None:
    assert {"digits", "mnist1d", "folder", "idx"} <= set(registry.names("dataset"))
    assert {"digits-mlp", "mnist1d-cnn"} <= set(registry.names("model"))
    assert {"baseline", "bf16", "distill"} <= set(registry.names("technique"))


def test_names_of_each_kind_are_sorted() -> None:
    for kind in ("model", "technique", "dataset"):
        assert registry.names(kind) == sorted(registry.names(kind))


def test_a_plugin_file_adds_a_model_a_technique_and_a_data_set(write: Callable[..., str]) -> None:
    registry.load_plugins([write(PLUGIN)])
    subject = as_subject(registry.build("model", "tiny(2)"), "tiny")
    doubled = registry.build("technique", "scale(2)", subject)
    assert torch.equal(doubled.module(*subject.inputs), 2 * subject.module(*subject.inputs))
    assert len(load_dataset("ramps(count=8)").train) == 8


def test_the_catalog_tells_what_a_plugin_declares(write: Callable[..., str]) -> None:
    file = write(PLUGIN)
    registry.load_plugins([file])
    known = {(entry["kind"], entry["name"]): entry for entry in registry.catalog()}
    scale = known["technique", "scale"]
    assert (scale["stage"], scale["realization"], scale["devices"]) == (
        "execution", "packed", ("cpu",)
    )  # fmt: skip
    assert scale["source"] == file
    factor = {"name": "factor", "default": "<required>", "type": "float", "range": "any number"}
    assert scale["parameters"] == [factor]
    tiny = known["model", "tiny"]
    assert tiny["summary"] == "A linear layer on four values."
    assert tiny["parameters"] == [
        {"name": "width", "default": 2, "type": "int", "range": "1 or more"}
    ]
    assert "factory" not in tiny


def test_limits_that_a_plugin_declares_are_kept(write: Callable[..., str]) -> None:
    registry.load_plugins([write(PLUGIN)])
    assert "width must be 1 or more, got 0" in refusal(lambda: registry.find("model", "tiny(0)"))
    assert "'factor' is missing" in refusal(lambda: registry.find("technique", "scale"))


def test_a_keyword_only_parameter_can_be_given_by_position(write: Callable[..., str]) -> None:
    registry.load_plugins([write(PLUGIN)])
    entry, call = registry.find("technique", "scale(3)")
    assert str(call) == "scale(factor=3.0)"
    subject = as_subject(registry.build("model", "tiny"), "tiny")
    assert isinstance(entry.factory(subject, *call.args, **dict(call.kwargs)), Subject)


def test_a_function_in_a_file_needs_no_decorator(write: Callable[..., str]) -> None:
    file = write(PLUGIN)
    entry, call = registry.find("technique", f"{file}:plain(amount=2)")
    assert [parameter.name for parameter in entry.parameters] == ["amount"]
    assert str(call) == f"{file}:plain(2)"
    subject = as_subject(registry.build("model", f"{file}:tiny"), "tiny")
    assert registry.build("technique", f"{file}:plain(2)", subject).notes == ("plain 2",)
    assert ("technique", "plain") not in registry._entries


def test_a_function_in_a_file_keeps_what_its_decorator_declares(
    write: Callable[..., str],
) -> None:
    entry, _ = registry.find("technique", f"{write(PLUGIN)}:scale(2)")
    assert (entry.name, entry.stage, entry.devices) == ("scale", "execution", ("cpu",))


def test_a_data_set_in_a_file_is_found(write: Callable[..., str]) -> None:
    made = load_dataset(f"{write(PLUGIN)}:ramps(count=4)")
    assert isinstance(made, Dataset)
    assert made.shape == (4,)


def test_a_function_that_makes_no_data_set_is_named(write: Callable[..., str]) -> None:
    text = f"{write('def load(): return 5')}:load"
    assert f"{text!r} returned int" in refusal(lambda: load_dataset(text))


def test_a_file_is_imported_once(write: Callable[..., str], tmp_path: Path) -> None:
    count = tmp_path / "count"
    file = write(f"open({str(count)!r}, 'a').write('x')\n{PLUGIN}")
    registry.load_plugins([file, file])
    registry.find("model", f"{file}:tiny")
    assert count.read_text() == "x"


def test_files_of_the_same_name_in_two_folders_are_two_files(write: Callable[..., str]) -> None:
    one = write("def load(): return 1", "one/mine.py")
    two = write("def load(): return 2", "two/mine.py")
    assert registry.build("dataset", f"{one}:load") == 1
    assert registry.build("dataset", f"{two}:load") == 2


def test_a_path_short_for_its_data_set_is_written_as_a_parameter() -> None:
    _, call = registry.find("dataset", "folder:/data/my images(size=8)")
    assert str(call) == "folder('/data/my images', size=8)"


@pytest.mark.parametrize(
    ("kind", "text", "near"),
    [
        ("model", "digits-mpl", "digits-mlp"),
        ("technique", "prune-chanels(0.5)", "prune-channels"),
        ("dataset", "mnist", "mnist1d"),
        ("dataset", "foldr:/data", "folder"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest_known(
    kind: registry.Kind, text: str, near: str
) -> None:
    message = refusal(lambda: registry.find(kind, text))
    assert message.startswith(f"Unknown {kind} ")
    assert f"Did you mean {near!r}?" in message
    assert f"`paretogrid list {kind}s` shows all {len(registry.names(kind))}." in message


def test_a_name_like_no_other_comes_without_a_guess() -> None:
    assert "Did you mean" not in refusal(lambda: registry.find("model", "zzzzzz"))


def test_a_name_of_another_kind_is_unknown() -> None:
    assert "Unknown model 'bf16'" in refusal(lambda: registry.find("model", "bf16"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    file = str(tmp_path / "absent.py")
    assert refusal(lambda: registry.find("model", f"{file}:net")) == f"No such file: {file}."
    assert refusal(lambda: registry.load_plugins([file])) == f"No such file: {file}."
    assert refusal(lambda: load_file(str(tmp_path))) == f"No such file: {tmp_path}."


def test_a_file_that_is_not_python_is_named(write: Callable[..., str]) -> None:
    file = write("hello", "notes.txt")
    assert refusal(lambda: load_file(file)) == f"{file} is not a Python file."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_package_here", "ModuleNotFoundError: No module named"),
        ("def net(:", "SyntaxError:"),
        (
            "from . import beside",
            "ImportError: attempted relative import with no known parent "
            "package. A file is imported by itself",
        ),
    ],
)
def test_a_file_that_fails_to_import_says_why(
    write: Callable[..., str], text: str, reason: str
) -> None:
    file = write(text)
    assert f"{file} fails to import: {reason}" in refusal(lambda: load_file(file))


def test_a_file_that_failed_can_be_mended_and_loaded_again(write: Callable[..., str]) -> None:
    file = write(f"{PLUGIN}\n1 / 0")
    refusal(lambda: load_file(file))
    write(f"{PLUGIN}\n# mended")
    load_file(file)
    assert registry.find("model", "tiny")[0].source == file


def test_a_file_edited_twice_in_one_second_runs_as_it_is(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = write("assert 0")
    os.utime(file, (0, 0))
    refusal(lambda: load_file(file))
    write("assert 1")
    os.utime(file, (0, 0))  # the same size and time, by which Python judges its bytecode cache
    load_file(file)


def test_a_file_without_the_function_comes_with_the_nearest_it_has(
    write: Callable[..., str],
) -> None:
    file = write(PLUGIN)
    message = refusal(lambda: registry.find("model", f"{file}:tinny"))
    assert message == f"{file} has no function 'tinny'. Did you mean 'tiny'?"


def test_a_name_that_another_file_has_taken_is_refused(write: Callable[..., str]) -> None:
    first, second = write(PLUGIN), write(PLUGIN, "other.py")
    load_file(first)
    message = refusal(lambda: load_file(second))
    assert message == f"dataset 'ramps' of {second} already exists in {first}."


def test_a_built_in_cannot_be_replaced_by_a_plugin(write: Callable[..., str]) -> None:
    file = write("from bench import model\n\n@model('digits-mlp')\ndef net(): ...\n")
    assert f"model 'digits-mlp' of {file} already exists" in refusal(lambda: load_file(file))
    assert registry.find("model", "digits-mlp")[0].factory.__module__ == "bench.models.mlp"


def test_a_name_can_be_taken_by_each_kind(write: Callable[..., str]) -> None:
    load_file(write("from bench import model\n\n@model('bf16')\ndef net(): ...\n"))
    assert registry.find("model", "bf16")[0] != registry.find("technique", "bf16")[0]


def test_a_plugin_can_import_a_file_beside_it(write: Callable[..., str]) -> None:
    write("VALUE = 7", "paretogrid_file_neighbour.py")
    file = write("import paretogrid_file_neighbour as n\n\ndef load(): return n.VALUE\n")
    assert registry.build("dataset", f"{file}:load") == 7


def test_a_file_beside_a_plugin_does_not_shadow_an_installed_package(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("WHOSE = 'installed'", "site/paretogrid_file_package.py")
    monkeypatch.syspath_prepend(tmp_path / "site")
    write("WHOSE = 'beside'", "plugin/paretogrid_file_package.py")
    text = "import paretogrid_file_package as p\n\ndef load(): return p.WHOSE\n"
    file = write(text, "plugin/mine.py")
    assert registry.build("dataset", f"{file}:load") == "installed"


def test_a_plugin_named_like_a_package_does_not_replace_it(write: Callable[..., str]) -> None:
    file = write("import torch\n\ndef load(): return torch.__name__\n", "torch.py")
    assert registry.build("dataset", f"{file}:load") == "torch"
    assert hasattr(sys.modules["torch"], "Tensor")


@pytest.mark.parametrize("value", ["3", "print", "functools.partial(print)", "torch.nn"])
def test_what_is_no_function_of_the_file_is_refused(write: Callable[..., str], value: str) -> None:
    file = write(f"import functools, torch\nthing = {value}")
    assert f"{file} has no function 'thing'" in refusal(
        lambda: registry.find("model", f"{file}:thing")
    )


def test_a_cached_function_is_a_function(write: Callable[..., str]) -> None:
    file = write(
        "from functools import cache\nfrom bench import dataset\n\n"
        "@dataset('kept')\n@cache\ndef load(count: int = 3): return [count]\n"
    )
    assert registry.build("dataset", f"{file}:load(4)") is registry.build("dataset", "kept(4)")
    assert registry.find("dataset", "kept")[0].source == file


def test_annotations_that_do_not_exist_do_not_stop_a_plugin(write: Callable[..., str]) -> None:
    file = write("from __future__ import annotations\n\ndef net(width: Absent = 3): ...\n")
    entry, _ = registry.find("model", f"{file}:net(4)")
    assert [(p.name, p.default, p.type) for p in entry.parameters] == [("width", 3, "")]


def test_a_refusal_of_a_factory_reaches_the_caller(write: Callable[..., str]) -> None:
    file = write("import bench\n\ndef net(): raise bench.Refusal('not here')\n")
    with pytest.raises(Refusal, match="not here"):
        registry.build("model", f"{file}:net")


def test_an_installed_package_brings_its_plugins_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text(
        "from bench import technique\n"
        "@technique('theirs')\n"
        "def theirs(subject):\n"
        "    return subject\n"
    )
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[paretogrid.plugins]\ntheirs = their_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.load_plugins()
    assert "theirs" in registry.names("technique")


def test_an_installed_plugin_that_fails_to_import_is_named(tmp_path, monkeypatch):
    info = tmp_path / "broken_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[paretogrid.plugins]\nbad = broken_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SpecError, match=r"'bad' \(broken_package\) fails to import"):
        registry.load_plugins()
