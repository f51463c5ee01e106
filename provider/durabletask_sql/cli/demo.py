"""`durabletask-sql demo`: its code needs the SDK, which is an extra."""

import argparse
import importlib.util

from durabletask_sql.errors import SettingsError


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "demo", help="run a sample workflow, kill the server half-way, and watch it finish",
        description="Start a server on a fresh SQLite file, run a sample workflow with the durabletask SDK, kill the "
                    "server half-way, start it again, and check that nothing was lost or counted twice.",
        epilog="example: durabletask-sql demo --database demo.db")
    parser.add_argument("--database", metavar="FILE", default="durabletask-demo.db",
                        help="SQLite file to make afresh (default: durabletask-demo.db)")
    parser.set_defaults(run=_run)


def require_sdk(what: str) -> None:
    """Raise SettingsError, saying what to do, when the SDK is not installed."""
    if importlib.util.find_spec("durabletask") is None:
        message = f'{what} needs the Durable Task SDK: run `pip install "durabletask-sql[demo]"`'
        raise SettingsError(message)


def _run(options: argparse.Namespace) -> int:
    require_sdk("the demo")
    from durabletask_sql.demo import run  # noqa: PLC0415 - the SDK that it imports is an extra

    return run(options)
