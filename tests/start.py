"""How tests start the command: warm, or as its user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.sweep.launcher import SERVER_ENVIRONMENT
from tests.warm import Stove, WarmProcess, is_alike, start_server

COMMAND = (sys.executable, "-P", "-m", "paretogrid")


class Kitchen:
    """A stove for commands and one for their servers, lit when the first is asked for."""

    def __init__(self) -> None:
        self._commands = Stove("command")
        self._servers = Stove("server", **SERVER_ENVIRONMENT)

    def start(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start the command; cold where Python would not start with the same environment."""
        if not is_alike(options.get("env") or os.environ, os.environ):
            return subprocess.Popen([*COMMAND, *arguments], **options)
        if not self._commands.is_lit:
            if not self._servers.is_lit:
                self._servers.light()
            self._commands.light(self._servers.control.fileno())
        return WarmProcess(self._commands.control, arguments, **options)

    def start_server(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a launcher's server in this process, as `Popen` would; most need not import."""
        if not self._servers.is_lit:
            self._servers.light()
        known = {**os.environ, **SERVER_ENVIRONMENT}
        return start_server(self._servers.control, known)(command, **options)

    def close(self) -> None:
        """End both; what they have started goes on."""
        self._commands.close()
        self._servers.close()


KITCHEN: list[Kitchen] = []


def start_command(
    folder: Path, *arguments: str, cold: bool = False, **options: Any
) -> subprocess.Popen[str]:
    """Start `paretogrid` in a folder; a fork of one that is warm, where there is a kitchen.

    `cold`: by Python, as its user does, and its server is its child.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    whole = {"cwd": folder, "text": True, **pipes, **options}
    if KITCHEN and not cold:
        return KITCHEN[0].start(arguments, **whole)
    return subprocess.Popen([*COMMAND, *arguments], **whole)


def run_command(
    folder: Path, *arguments: str, timeout: float = 300, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `paretogrid` in a folder."""
    with start_command(folder, *arguments, **options) as running:
        try:
            shown, said = running.communicate(timeout=timeout)
        finally:
            running.kill()
    return subprocess.CompletedProcess(running.args, running.returncode, shown, said)
