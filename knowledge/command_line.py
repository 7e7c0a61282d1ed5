"""Options shared by all our commands: `--version`, `--json`, `--tenant`, and the exit codes in each help text."""

from importlib.metadata import version
from typing import Annotated

import msgspec
import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")]
TenantOption = typer.Option("--tenant", envvar="TENANT", help="The bank's tenant.")


def print_json(value: object) -> None:
    """Print a value of dataclasses and plain types as one line of JSON."""
    typer.echo(msgspec.json.encode(value, enc_hook=sorted).decode())


def add_common_help(app: typer.Typer, exit_codes: str) -> None:
    """Add `--version` to an app, and the exit codes to its help and to the help of each of its commands."""

    def options(
        context: typer.Context,
        *,
        is_version_asked: Annotated[
            bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        if is_version_asked:
            typer.echo(f"{context.info_name} {version('bank-chatbot')}")
            raise typer.Exit

    app.callback(invoke_without_command=True)(options)
    _add_epilog(app, exit_codes)


def _add_epilog(app: typer.Typer, epilog: str) -> None:
    app.info.epilog = epilog
    for command in app.registered_commands:
        command.epilog = epilog
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _add_epilog(group.typer_instance, epilog)
