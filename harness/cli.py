"""The command `paretogrid`: its verbs, and its exit code where a user is mistaken."""

from __future__ import annotations

import sys

import typer

from harness.commands import bring, decide, look, measure
from harness.console.streams import drop_undelivered, err, out
from harness.errors import ExitCode, UserError
from harness.sweep.interruption import Interruption

app = typer.Typer(
    help="Benchmarks of smaller and faster models, with numbers that hold on a noisy machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(measure.run)
app.command()(measure.resume)
app.command("list")(look.list_)
app.command()(look.inspect)
app.command()(look.doctor)
app.command()(decide.frontier)
app.command()(decide.recommend)
app.command()(decide.report)
app.command()(decide.query)
app.add_typer(bring.app, name="import")


def main() -> None:
    """Run the command; a user's mistake is one message and exit code 2."""
    try:
        with Interruption().heard():
            try:
                app(standalone_mode=True)
            finally:
                out.file.flush()
    except UserError as mistake:
        err.print(f"paretogrid: {mistake}")
        sys.exit(ExitCode.USAGE)
    except OSError as error:
        code = getattr(error.__context__, "exit_code", None)  # of an option nobody can be told of
        if code is None and not isinstance(error, BrokenPipeError):
            raise
        sys.exit(code or 1)  # 1 as typer ends where nobody reads any more
    finally:
        drop_undelivered(sys.stdout)
        drop_undelivered(sys.stderr)
