"""Small TOML files that people write, checked against what they have to say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import UserError

Checked = TypeVar("Checked", bound=BaseModel)


def read_toml(path: Path, model: type[Checked], hint: str) -> Checked:
    """Return what a file says; raise UserError with the place and the hint where it is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}. {hint}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"Cannot read {path} as TOML: {error}.") from None
    return check_data(data, model, str(path), hint)


def check_data(data: dict[str, Any], model: type[Checked], where: str, hint: str) -> Checked:
    """Return the data as a model; raise UserError with the place and the hint."""
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{where}, {place}: {first['msg']}. {hint}") from None
