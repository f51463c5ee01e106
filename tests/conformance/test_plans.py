"""Pages are read in the order of an index that serves them: nothing is sorted, no table is scanned."""

from __future__ import annotations

import pytest

from conformance.plans import plan_of
from conformance.world import World, in_world
from durabletask_sql.model.queries import EndedQuery, InstanceQuery
from durabletask_sql.model.status import Status
from durabletask_sql.storage.queries import ended_statement, page_statement

PAGES = {
    "all": (page_statement(InstanceQuery()), "ix_instances_created"),
    "one status": (page_statement(InstanceQuery(frozenset({Status.FAILED}), 1, 2)), "ix_instances_status"),
    "all ended": (ended_statement(EndedQuery(after="1:a")), "ix_instances_completed"),
    "ended in a range": (ended_statement(EndedQuery(frozenset({Status.FAILED}), 1, 2)), "ix_instances_completed"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_in_the_order_of_its_index(database_url, name):
    statement, index = PAGES[name]

    async def test(w: World):
        plan = await plan_of(w, statement)
        assert index in plan, plan
        assert "Sort" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan

    in_world(database_url, test)
