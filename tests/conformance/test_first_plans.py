"""Plans are made once a session, mostly while all tables of a new hub are empty: they have to serve for what comes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from conformance.crowd import PostgresCrowd, counts
from conformance.test_plans import all_statements
from conformance.world import open_world
from postgres import create_database

WIDE = {"parking.COUNT_PARKED"}  # an operator's question about what is parked in all partitions of the hub


@pytest.fixture(scope="session")
def empty(postgres_server: str) -> Iterator[PostgresCrowd]:
    """A hub in which nothing has happened yet."""
    url = create_database(postgres_server)

    async def create() -> None:
        await (await open_world(url)).store.close()

    asyncio.run(create())
    crowd = PostgresCrowd(url)
    yield crowd
    crowd.close()


def looked_up(node, indexes):
    """The columns of an index by which a node of a plan searches it, in the index's order."""
    columns = indexes[node["Index Name"]]
    return columns, [name for name in columns if re.search(rf"\b{name}\b", node["Index Cond"])]


@pytest.mark.parametrize("statement", [
    pytest.param(one, id=name) for name, one in all_statements().items() if name not in WIDE])
def test_a_plan_made_while_there_is_nothing_reads_no_index_from_end_to_end(empty, statement):
    indexes = empty.indexes()
    for node in [node for count in counts(statement) for node in empty.nodes(statement, count)]:
        if "Index Cond" in node:
            columns, known = looked_up(node, indexes)
            # A column that is not known, before one that is: everything that has other values there is read in vain.
            assert columns[:len(known)] == known, (node["Index Name"], node["Index Cond"])
