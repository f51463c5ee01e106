"""Looking into a database past everything of this project."""

from __future__ import annotations

import sqlite3
from typing import Any

import psycopg


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Run a query on a connection of its own, read only, and return its rows."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
    with psycopg.connect(url, options="-c default_transaction_read_only=on") as other:
        return other.execute(sql).fetchall()


def count(url: str, table: str) -> int:
    """Return how many rows a table has."""
    return int(rows(url, f"SELECT count(*) FROM {table}")[0][0])
