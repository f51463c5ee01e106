"""`durabletask-sql quarantine list|show|redrive|fail`."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from durabletask_sql.clock import MICROSECONDS, SystemClock
from durabletask_sql.errors import MalformedFrameError, NotFoundError, SettingsError
from durabletask_sql.model.quarantine import AsideId, AsideItem, AsideOutcome, AsideRow, Source
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.service.quarantine import Quarantine
from durabletask_sql.settings import DEFAULT_DATABASE, from_environment
from durabletask_sql.storage.store import SqlStore
from durabletask_sql.storage.url import SQLITE, parse_url

_LEASE_SECONDS = 12.0  # of a connection that holds none: how long a transaction of it may stay idle
_SAID = {
    AsideOutcome.ENDED: "its execution is over: nothing can be put back; `quarantine fail` removes it",
    AsideOutcome.GONE: "it is not in the quarantine (any more)",
    AsideOutcome.UNFAILABLE: "it asks for an entity's lock or releases one, which cannot fail: redrive it",
}


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "quarantine", help="list, show, put back or give up what was set aside",
        description="List, show, put back or give up the items that were set aside because they cannot be carried out.",
        epilog="example: durabletask-sql quarantine list --database postgresql://user:secret@db/tasks --task-hub orders")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = _action(actions, "list", "list what was set aside, longest first", "list --instance order-7", _list)
    listing.add_argument("--instance", metavar="ID", help="only that of this instance or entity")
    listing.add_argument("--limit", metavar="N", type=int, default=100, help="at most so many (default: 100)")
    listing.add_argument("--after", metavar="TOKEN", help="go on where the page before ended, as it said")
    showing = _action(actions, "show", "show one item whole", "show m12 --payloads", _show)
    showing.add_argument("id", metavar="ID", help="the item, as `list` names it")
    showing.add_argument("--payloads", action="store_true", help="with the events that its rows hold")
    for name, text, action in (
            ("redrive", "put items back where they were, to be tried again", Quarantine.redrive),
            ("fail", "give items up: activities and calls fail, orchestrations end Failed", Quarantine.fail)):
        leaving = _action(actions, name, text, f"{name} m12 a7", _leave)
        chosen = leaving.add_mutually_exclusive_group(required=True)
        chosen.add_argument("id", metavar="ID", nargs="*", default=[], help="items, as `list` names them")
        chosen.add_argument("--instance", metavar="ID", help="all items of this instance or entity")
        chosen.add_argument("--all", action="store_true", help="all items of the task hub")
        leaving.set_defaults(leave=action)


def _action(actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str, example: str,
            run: Callable[[argparse.Namespace, Quarantine], Awaitable[int]]) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".",
        epilog=f"example: durabletask-sql quarantine {example} --database sqlite:///durabletask.db")
    parser.add_argument("--database", metavar="URL", help=f"(default: $DURABLETASK_SQL_DATABASE, else {DEFAULT_DATABASE})")
    parser.add_argument("--task-hub", metavar="NAME", help="(default: $DURABLETASK_SQL_TASK_HUB, else default)")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object a line")
    async def on_hub(options: argparse.Namespace, database: str) -> int:
        async with _opened(database, options.task_hub or from_environment().hubs[0]) as quarantine:
            return await run(options, quarantine)

    parser.set_defaults(run=lambda options: asyncio.run(on_hub(options, _database(options))))
    return parser


def _database(options: argparse.Namespace) -> str:
    """Return the URL of a database that is there: none is made."""
    text: str = from_environment().database if options.database is None else options.database
    url = parse_url(text)
    if url.dialect == SQLITE and not Path(url.location).exists():
        message = f"there is no database {url.shown}: name the one that the server uses with --database"
        raise SettingsError(message)
    return text


@asynccontextmanager
async def _opened(database: str, name: str) -> AsyncIterator[Quarantine]:
    """Open the quarantine of a task hub that is there."""
    store = await SqlStore.open(database, lease_seconds=_LEASE_SECONDS, allow_unsafe=True)
    try:
        hub = await store.find_hub(name)
        if hub is None:
            message = f"the database {store.shown} has no task hub {name!r}: name another with --task-hub"
            raise NotFoundError(message)
        yield Quarantine(store.quarantine(hub), SystemClock())
    finally:
        await store.close()


async def _list(options: argparse.Namespace, quarantine: Quarantine) -> int:
    page = await quarantine.page(instance_id=options.instance, after=options.after, limit=options.limit)
    if options.json:
        for item in page.items:
            _write(json.dumps(described(item)))
        if page.next is not None:
            _write(json.dumps({"next": page.next}))
        return 0
    for item in page.items:
        named = f" {item.name!r}" if item.name else ""
        status = "" if item.status is None else f" ({item.status.name.lower()})"
        _write(f"{item.id}  {_time(item.set_aside_at)}  {item.kind.value}{named} of {item.key.instance_id!r}{status}, "
               f"{item.attempts} failed: {_short(item.cause)}")
    if not page.items:
        _write("nothing is set aside")
    elif page.next is not None:
        _write(f"there is more: go on with --after {page.next}")
    return 0


async def _show(options: argparse.Namespace, quarantine: Quarantine) -> int:
    item, rows = await quarantine.get(options.id)
    shown = {**described(item), "rows": [_described_row(row, payloads=options.payloads) for row in rows]}
    _write(json.dumps(shown) if options.json else json.dumps(shown, indent=2, ensure_ascii=False))
    return 0


async def _leave(options: argparse.Namespace, quarantine: Quarantine) -> int:
    """Redrive or fail what was named; exit with 1 if something was left behind."""
    outcomes: dict[AsideId, AsideOutcome] = {}
    if options.id:
        outcomes.update(await options.leave(quarantine, options.id))
    else:
        async for batch in quarantine.batches(options.instance):
            outcomes.update(await options.leave(quarantine, batch))
    left = {item_id: outcome for item_id, outcome in outcomes.items() if outcome is not AsideOutcome.DONE}
    _report(options, outcomes, left)
    return 1 if left else 0


def _report(options: argparse.Namespace, outcomes: Mapping[AsideId, AsideOutcome],
            left: Mapping[AsideId, AsideOutcome]) -> None:
    if options.json:
        for item_id, outcome in outcomes.items():
            _write(json.dumps({"id": str(item_id), "outcome": outcome.value}))
        return
    verb = "put back" if options.action == "redrive" else "given up"
    _write(f"{len(outcomes) - len(left)} of {len(outcomes)} items were {verb}")
    for item_id, outcome in left.items():
        _write(f"{item_id}: {_SAID[outcome]}")


def described(item: AsideItem) -> dict[str, object]:
    """Return an item as JSON has it."""
    return {"id": str(item.id), "kind": item.kind.value, "instance": item.key.instance_id,
            "execution": item.execution_id, "name": item.name, "version": item.version, "cause": item.cause,
            "worker": item.worker, "attempts": item.attempts, "setAsideAt": _time(item.set_aside_at),
            "messages": item.rows, "bytes": item.size,
            "instanceStatus": None if item.status is None else item.status.name.lower()}


def _described_row(row: AsideRow, *, payloads: bool) -> dict[str, object]:
    found: dict[str, object] = {"queue": row.source.name.lower(), "sequence": row.seq, "bytes": len(row.content)}
    if row.fire_at is not None:
        found["fireAt"] = _time(row.fire_at)
    if row.task_id is not None:
        found["taskId"] = row.task_id
    if payloads:
        found["events"] = _events(row)
    return found


def _events(row: AsideRow) -> Sequence[object]:
    try:
        events = [pb.HistoryEvent.FromString(row.content)] if row.source is Source.TASK else list(iter_events(row.content))
    except (MalformedFrameError, DecodeError) as error:
        return [{"unreadable": str(error), "hex": row.content.hex()}]
    return [MessageToDict(event) for event in events]


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / MICROSECONDS, UTC).isoformat(timespec="milliseconds")


def _short(text: str, most: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
