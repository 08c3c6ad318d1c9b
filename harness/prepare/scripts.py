"""Scripts: all that a module or function of TorchScript holds, in words that every process finds.

Its graph shows neither attributes that are no tensors nor, of a constant, more than a few numbers:
these are in what it would save.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

MANGLED = re.compile(r"___torch_mangle_\d+\.")
"""What TorchScript puts into names, anew in each process."""
BY_GRAPHS = (".py", ".debug_pkl", "serialization_id")
"""Endings of what is saved of its code: names of classes tell there which files it is in."""


def read_script(script: Any) -> Iterator[str | bytes]:
    """Yield what stands for a script: the same in each process, another for any other script.

    Raises whatever TorchScript does where it cannot save it.
    """
    yield from _read_graphs(script)
    file = io.BytesIO()
    torch.jit.save(script, file)
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(BY_GRAPHS):
                continue
            yield name
            if name.endswith(".pkl"):  # the length of a name is written before it
                for operation, argument, _ in pickletools.genops(archive.read(name)):
                    named = operation.name == "GLOBAL"  # "module name"
                    text = str(argument).replace(" ", ".") if named else str(argument)
                    yield f"{operation.name} {MANGLED.sub('', text)}"
            else:
                yield archive.read(name)


def _read_graphs(script: Any) -> Iterator[str]:
    """What each method does, those included that it calls."""
    if isinstance(script, torch.jit.ScriptFunction):
        yield MANGLED.sub("", str(script.inlined_graph))
        return
    for path, part in script.named_modules():
        yield path
        for name in sorted(part._c._method_names()):
            yield MANGLED.sub("", f"{name} {part._c._get_method(name).inlined_graph}")
