"""Effects: which of the user's modules do something when they are imported, beside defining.

What a file sets or patches at its top holds where a model is trained, whoever the file is named by.
One that only defines what may be called does nothing there until it is: somebody who edits his
technique all day need not train his models each time.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PURE = ("bench", "dataclasses", "typing", "collections", "enum", "pathlib", "math", "abc", "re",
        "functools.cache", "functools.cached_property", "functools.lru_cache", "functools.partial",
        "functools.wraps", "contextlib.contextmanager", "torch.no_grad",
        "torch.inference_mode")  # fmt: skip
"""Modules and functions whose calls change nothing elsewhere."""
BUILT_INS = ("bool", "bytes", "classmethod", "dict", "float", "frozenset", "int", "len", "list",
             "object", "property", "range", "set", "slice", "staticmethod", "str",
             "tuple")  # fmt: skip
HARMLESS = ("torch", "numpy", "bench", "harness", *sys.stdlib_module_names)
"""Packages that are imported in every worker, or change nothing."""


def find_effective(modules: Iterable[str]) -> frozenset[str]:
    """Return the modules that may do something when they are imported, of some of the user's.

    An installed package that one of them imports is among these: many patch PyTorch.
    """
    found = set()
    for name in modules:
        file = Path(str(sys.modules[name].__file__))
        tree = ast.parse(file.read_bytes()) if file.suffix == ".py" else None
        if tree is None or not only_defines(tree):
            found.add(name)
        else:
            found |= {package for package in _imported(tree) if package not in HARMLESS}
    return frozenset(found)


def only_defines(tree: ast.Module) -> bool:
    """Tell whether all that a file does is to import, and to give names to what it makes."""
    return _Reader(_origins(tree)).defines(tree.body)


def _imported(tree: ast.Module) -> Iterator[str]:
    """The packages that are imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _origins(tree: ast.Module) -> dict[str, str]:
    """What names stand for by the imports of a file, with their modules."""
    found = {name: name for name in BUILT_INS}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}"
                      for alias in node.names}  # fmt: skip
    return found


class _Reader:
    """Reads statements as they stand at the top of a file; what it does not know has an effect."""

    def __init__(self, origins: dict[str, str]) -> None:
        self._origins = origins

    def defines(self, body: Sequence[ast.stmt]) -> bool:
        """Tell whether all statements only define."""
        return all(map(self._only_defines, body))

    def _only_defines(self, node: ast.stmt) -> bool:
        parts = _open(node)
        return parts is not None and all(map(self._is_pure, parts[0])) and self.defines(parts[1])

    def _is_pure(self, value: ast.expr | None) -> bool:
        """Tell whether an expression calls nothing unknown."""
        if value is None:
            return True
        calls = (node.func for node in ast.walk(value) if isinstance(node, ast.Call))
        return all(map(self._is_known, calls))

    def _is_known(self, function: ast.expr) -> bool:
        name, _, rest = ast.unparse(function).partition(".")
        whole = ".".join(filter(None, (self._origins.get(name, ""), rest)))
        return name in self._origins and (
            whole in BUILT_INS or any(f"{whole}.".startswith(f"{pure}.") for pure in PURE)
        )


def _open(node: ast.stmt) -> tuple[Sequence[ast.expr | None], Sequence[ast.stmt]] | None:
    """The expressions and statements that a statement carries out; None where it does more."""
    parts: tuple[Sequence[ast.expr | None], Sequence[ast.stmt]] | None = None
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
            parts = (), ()
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            given = node.args
            parts = (*given.defaults, *given.kw_defaults, *map(_call, node.decorator_list)), ()
        case ast.ClassDef(keywords=[]):
            parts = (*node.bases, *map(_call, node.decorator_list)), node.body
        case ast.Assign(targets=targets) if all(map(_is_name, targets)):
            parts = (node.value,), ()
        case ast.AnnAssign(target=ast.Name()):
            parts = (node.value,), ()
        case ast.If() if _is_never(node.test):
            parts = (), node.orelse
        case ast.If():
            parts = (node.test,), (*node.body, *node.orelse)
        case ast.Try():
            handled = (one for handler in node.handlers for one in handler.body)
            parts = (), (*node.body, *handled, *node.orelse, *node.finalbody)
    return parts


def _call(decorator: ast.expr) -> ast.expr:
    """What Python does with a decorator."""
    return decorator if isinstance(decorator, ast.Call) else ast.Call(decorator, [], [])


def _is_name(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(map(_is_name, target.elts))
    return isinstance(target, ast.Name)


def _is_never(test: ast.expr) -> bool:
    """Tell whether this holds only for who reads types, or runs the file by itself."""
    told = ast.unparse(test)
    return told.endswith("TYPE_CHECKING") or told == "__name__ == '__main__'"
