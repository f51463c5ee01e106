"""Examining a database from a test, without waiting, and planting damage past everything of this project."""

from __future__ import annotations

import asyncio
import sqlite3

import psycopg

from durabletask_sql.doctor.examination import Examination
from durabletask_sql.doctor.findings import Level
from durabletask_sql.storage.inspection import SqlInspector


async def examine(url, *, repair=False, pause=None):
    """Examine the default hub."""
    inspector = await asyncio.to_thread(SqlInspector.open, url)

    async def no_pause(_):
        await asyncio.sleep(0)

    try:
        hub = next(one for one in await inspector.hubs() if one.name == "default")
        examination = Examination(hub, inspector.inspection(hub), lambda _: None, pause or no_pause)
        await examination.run()
        if repair:
            await examination.repair()
        return examination.report
    finally:
        await inspector.close()


def problems(report):
    """What is wrong, as (check, subject) with the words."""
    found = {}
    for one in report.findings:
        if one.level is Level.PROBLEM:
            found.setdefault((one.check, one.subject), []).append(one.text)
    return {key: "; ".join(texts) for key, texts in found.items()}


def notes(report):
    return {(one.check, one.subject): one.text for one in report.findings if one.level is Level.NOTE}


def plant(url, *statements):
    """Change the database as no program of ours would."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)
        try:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        finally:
            connection.close()
        return
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement)
