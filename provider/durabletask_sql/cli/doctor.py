"""`durabletask-sql doctor`."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from durabletask_sql.doctor.examination import Examination, Report
from durabletask_sql.doctor.findings import Finding, Level
from durabletask_sql.doctor.settings import check_settings
from durabletask_sql.errors import DurableTaskSqlError, SettingsError
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.settings import DEFAULT_DATABASE, check_hubs, from_environment
from durabletask_sql.storage.inspection import SqlInspector

_CLEAN, _PROBLEMS, _CANNOT_LOOK = 0, 1, 2
_SHOWN_NOTES = 5


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "doctor", help="examine task hubs, while servers run or not, and say what is wrong",
        description="Examine task hubs, while servers run or not: histories, queues, locks, leases, settings. "
                    "Exits with 0 if everything is as promised, 1 if there are problems, 2 if it cannot look.",
        epilog="example: durabletask-sql doctor --database postgresql://user:secret@db/tasks --task-hub orders")
    parser.add_argument("--database", metavar="URL",
                        help=f"(default: $DURABLETASK_SQL_DATABASE, else {DEFAULT_DATABASE})")
    parser.add_argument("--task-hub", metavar="NAME", action="append",
                        help="task hub to examine; may be given several times (default: all)")
    parser.add_argument("--repair", action="store_true", help="delete what belongs to nobody, give back what hosts that "
                        "are gone have claimed, free what only the dead hold; nothing else is changed")
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine, and print what was found."""
    try:
        return asyncio.run(_examine(options))
    except DurableTaskSqlError as error:
        sys.stderr.write(f"durabletask-sql: {error}\n")
        return _CANNOT_LOOK


async def _examine(options: argparse.Namespace) -> int:
    url = from_environment().database if options.database is None else options.database
    inspector = await asyncio.to_thread(SqlInspector.open, url)
    try:
        settings = check_settings(await inspector.settings())
        reports = []
        for hub in _chosen(await inspector.hubs(), options.task_hub):
            examination = Examination(hub, inspector.inspection(hub), _progress)
            reports.append(await examination.run())
            if options.repair:
                await examination.repair()
    finally:
        await inspector.close()
    (_print_json if options.json else _print)(settings, reports)
    problems = sum(finding.level is Level.PROBLEM for finding in settings) + sum(report.problems for report in reports)
    return _PROBLEMS if problems else _CLEAN


def _chosen(hubs: Sequence[TaskHub], names: Sequence[str] | None) -> Sequence[TaskHub]:
    if not names:
        return hubs
    known = {hub.name: hub for hub in hubs}
    wanted = check_hubs(names, "--task-hub")
    missing = [name for name in wanted if name not in known]
    if missing:
        message = f"there is no task hub {missing[0]!r}: the database has {', '.join(known) or 'none'}"
        raise SettingsError(message)
    return [known[name] for name in wanted]


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print(settings: Sequence[Finding], reports: Sequence[Report]) -> None:
    for finding in settings:
        _print_finding(finding)
    for report in reports:
        notes = 0
        for finding in report.findings:
            notes += finding.level is Level.NOTE
            if finding.level is Level.PROBLEM or notes <= _SHOWN_NOTES:
                _print_finding(finding, repaired=finding in report.repaired)
        counts = ", ".join(f"{count} {level.value}s of {check}" for (check, level), count in sorted(report.counts.items()))
        sys.stdout.write(f"task hub {report.hub}: {report.instances} instances; {counts or 'nothing to tell'}"
                         f"{f'; {len(report.repaired)} repaired' if report.repaired else ''}; "
                         f"{f'{report.problems} problems' if report.problems else 'as promised'}\n")


def _print_finding(finding: Finding, *, repaired: bool = False) -> None:
    end = "repaired" if repaired else finding.advice
    sys.stdout.write(f"{finding.level.value}: {finding.subject}: {finding.text} ({finding.check}). {end}\n")


def _print_json(settings: Sequence[Finding], reports: Sequence[Report]) -> None:
    found = {"settings": [_plain(finding) for finding in settings], "hubs": [
        {"hub": report.hub, "instances": report.instances, "problems": report.problems,
         "findings": [{**_plain(finding), "repaired": finding in report.repaired} for finding in report.findings],
         "counts": [{"check": check, "level": level.value, "count": count}
                    for (check, level), count in sorted(report.counts.items())]} for report in reports]}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _plain(finding: Finding) -> dict[str, object]:
    return {name: value for name, value in asdict(finding).items() if name not in ("passing", "repair")}
