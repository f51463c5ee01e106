"""`durabletask-sql schema upgrade|current|check`."""

import argparse
import sys

from durabletask_sql.errors import SchemaError
from durabletask_sql.settings import DEFAULT_DATABASE, from_environment
from durabletask_sql.storage import migrations
from durabletask_sql.storage.url import DatabaseUrl, parse_url


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "schema", help="create, upgrade or check the database's schema",
        description="Create, upgrade or check the database's schema.",
        epilog="example: durabletask-sql schema upgrade --database postgresql://user:secret@db/tasks")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, action in (("upgrade", "create the schema, or bring it to this program's version", _upgrade),
                               ("current", "print the version that the database is at", _current),
                               ("check", "exit with 0 if the schema is this program's, else with 1", _check)):
        command = actions.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".",
            epilog=f"example: durabletask-sql schema {name} --database sqlite:///durabletask.db")
        command.add_argument("--database", metavar="URL",
                             help=f"(default: $DURABLETASK_SQL_DATABASE, else {DEFAULT_DATABASE})")
        command.set_defaults(run=action)


def _url(options: argparse.Namespace) -> DatabaseUrl:
    return parse_url(from_environment().database if options.database is None else options.database)


def _upgrade(options: argparse.Namespace) -> int:
    url = _url(options)
    migrations.upgrade(url)
    sys.stdout.write(f"the schema of {url.shown} is at {migrations.head()}\n")
    return 0


def _current(options: argparse.Namespace) -> int:
    url = _url(options)
    sys.stdout.write(f"{migrations.revision(url) or 'none'} (this program needs {migrations.head()})\n")
    return 0


def _check(options: argparse.Namespace) -> int:
    url = _url(options)
    match migrations.state(url):
        case migrations.SchemaState.CURRENT:
            sys.stdout.write(f"the schema of {url.shown} is at {migrations.head()}, as this program needs\n")
            return 0
        case migrations.SchemaState.NEWER:
            raise SchemaError(migrations.newer_message(url))
        case found:
            message = (f"the schema of {url.shown} is {found.value}: run `durabletask-sql schema upgrade --database "
                       f"{url.shown}`")
            raise SchemaError(message)
