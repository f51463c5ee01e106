"""The command line: commands and their options, no logic."""

import argparse
import sys
from collections.abc import Sequence

from durabletask_sql import __version__
from durabletask_sql.cli import demo, doctor, quarantine, schema, serve, torture
from durabletask_sql.errors import DurableTaskSqlError

_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="durabletask-sql", description="A self-hosted, storage-backed server for the Durable Task SDKs.",
        epilog="example: durabletask-sql serve --database sqlite:///durabletask.db")
    parser.add_argument("--version", action="version", version=f"durabletask-sql {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve.add_command(commands)
    schema.add_command(commands)
    quarantine.add_command(commands)
    doctor.add_command(commands)
    demo.add_command(commands)
    torture.add_command(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0, 1 with one sentence on standard error, 2 for a wrong usage."""
    options = build_parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except DurableTaskSqlError as error:
        sys.stderr.write(f"durabletask-sql: {error}\n")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code
