"""`durabletask-sql torture`: its code needs the SDK, which is an extra."""

import argparse

from durabletask_sql.cli.demo import require_sdk
from durabletask_sql.errors import SettingsError
from durabletask_sql.settings import DEFAULT_DATABASE, from_environment


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "torture", help="kill and stop servers and workers at random while they work, and check that every promise held",
        description="Start servers and workers of the durabletask SDK on a task hub of its own, kill and stop them at "
                    "random while orchestrations run, and check that all complete, that their outputs are right, that "
                    "results count once and that the doctor finds nothing. The task hub (torture-SEED) is removed if all "
                    "is well.",
        epilog="example: durabletask-sql torture --database postgresql://user:secret@db/tasks --minutes 10")
    parser.add_argument("--database", metavar="URL",
                        help=f"(default: $DURABLETASK_SQL_DATABASE, else {DEFAULT_DATABASE})")
    parser.add_argument("--minutes", metavar="M", type=float, default=1.0, help="how long to torture (default: 1)")
    parser.add_argument("--seed", metavar="S", type=int, help="which blows and when (default: a random one, which is told)")
    parser.add_argument("--servers", metavar="N", type=int, default=3, help="server processes (default: 3)")
    parser.add_argument("--workers", metavar="N", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--in-flight", metavar="N", type=int, default=200,
                        help="orchestrations that run at the same time (default: 200)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    require_sdk("the torture")
    if options.database is None:
        options.database = from_environment().database
    for name in ("minutes", "servers", "workers", "in_flight"):
        if not getattr(options, name) > 0:
            message = f"--{name.replace('_', '-')} {getattr(options, name)} is too little: give more than 0"
            raise SettingsError(message)
    from durabletask_sql.demo.torture import run  # noqa: PLC0415 - the SDK that it imports is an extra

    return run(options)
