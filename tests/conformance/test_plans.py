"""What each statement touches among 100,000 instances: no scan, and work that does not grow with the hub."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import psycopg
import pytest

import durabletask_sql.storage
from conformance.crowd import COUNT, SECOND, PostgresCrowd, SqliteCrowd, build, counts, people, person
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.model.queries import EndedQuery, InstanceQuery
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.dialect import Statement
from durabletask_sql.storage.pages import ended_statement, needs_stretch, page_statement, stretch_statement, token_of
from durabletask_sql.storage.url import parse_url
from postgres import create_database

# Small tables: a hub has a handful of partitions and hosts.
SMALL = {"partitions", "hosts", "task_hubs"}
WHOLE_HUB = "EMPTY"  # statements that are about all that a hub holds
# About all of a partition, or all that a host that is gone has claimed: a doctor's.
WHOLE_PARTITION = ("inspection_statements.HELD", "inspection_statements.LOWER", "inspection_statements.RELEASE_CLAIMS")
MOST_ROWS, MOST_PAGES, MOST_STEPS = 600, 600, 30_000


def all_statements() -> dict[str, Statement]:
    found: dict[int, tuple[str, Statement]] = {}
    for module in pkgutil.iter_modules(durabletask_sql.storage.__path__):
        home = importlib.import_module(f"durabletask_sql.storage.{module.name}")
        for name, value in vars(home).items():
            for key, one in value.items() if isinstance(value, dict) else (("", value),):
                full_name = f"{module.name}.{name}{f'[{key}]' if key else ''}"
                if isinstance(one, Statement) and not name.startswith(WHOLE_HUB) and not full_name.startswith(
                        WHOLE_PARTITION):
                    found.setdefault(id(one), (full_name, one))
    return {name: one for name, one in found.values() if one.table != "the transaction"
            and not (one.counted and one.table in SMALL)}  # those would need the one row that they are about


@pytest.fixture(scope="session")
def sqlite_crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteCrowd]:
    url = f"sqlite:///{tmp_path_factory.mktemp('crowd') / 'hub.db'}"
    build(url)
    crowd = SqliteCrowd(url)
    yield crowd
    crowd.close()


@pytest.fixture(scope="session")
def postgres_crowd_url(postgres_server: str) -> str:
    url = create_database(postgres_server)
    build(url)
    return url


@pytest.fixture(scope="session")
def new_postgres_crowd(postgres_crowd_url: str) -> Iterator[PostgresCrowd]:
    """Tables that have no statistics yet, as in the first minute of a hub."""
    crowd = PostgresCrowd(postgres_crowd_url)
    yield crowd
    crowd.close()


@pytest.fixture(scope="session")
def known_postgres_crowd(postgres_server: str) -> Iterator[PostgresCrowd]:
    """Tables that were analyzed."""
    url = create_database(postgres_server)
    build(url)
    with psycopg.connect(parse_url(url).location, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    crowd = PostgresCrowd(url)
    yield crowd
    crowd.close()


@pytest.fixture(params=["sqlite", "new_postgres", "known_postgres"])
def crowd(request: pytest.FixtureRequest) -> SqliteCrowd | PostgresCrowd:
    return request.getfixturevalue(f"{request.param}_crowd")


@pytest.mark.parametrize("statement", all_statements().values(), ids=all_statements())
def test_a_statement_touches_what_it_is_about_and_no_more(crowd, statement):
    for count in counts(statement):
        cost = crowd.cost(statement, count)
        assert cost.scanned <= SMALL, (count, cost.plan)
        assert cost.rows <= MOST_ROWS, (count, cost.rows, cost.plan)
        assert cost.pages <= MOST_PAGES, (count, cost.pages, cost.plan)
        assert cost.steps <= MOST_STEPS, (count, cost.steps, cost.plan)


OTHER_HUB, FAN_IN = 77, ((3, "fan-in"), (4, "fan-in-too"))


@pytest.fixture
def held(crowd):
    """A thousand results that are in their owner's memory, for each of two fan-ins; rows that nobody holds elsewhere."""
    rows = [(partition, instance, "e", int(MessageKind.EVENT), 5, b"result") for partition, instance in FAN_IN
            for _ in range(1_000)]
    crowd.session.begin()
    crowd.session.send(sql.INSERT_MESSAGES, [*rows, (9, "else", "e", int(MessageKind.EVENT), 0, b"event")], hub=OTHER_HUB)
    crowd.session.commit()
    yield crowd
    crowd.session.begin()
    crowd.session.send(sql.SWEEP_MESSAGES, [*FAN_IN, (9, "else")], hub=OTHER_HUB)
    crowd.session.commit()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("statement", [sql.CLAIM, sql.CEILINGS], ids=["claim", "ceilings"])
def test_a_claim_does_not_read_what_is_held(held, statement, count):
    rows = [(*key, 5, 1_000)[:len(statement.columns)] for key in FAN_IN[:count]]
    cost = held.cost_for(statement, rows, hub=OTHER_HUB)
    assert cost.rows <= 2 * count, cost.plan  # those of the source
    assert cost.steps <= 500, (cost.steps, cost.plan)


# Pages

RARE, MANY = frozenset({Status.FAILED}), frozenset({Status.COMPLETED})
STATUSES = [frozenset(), RARE, MANY, RARE | MANY, LIVE, TERMINAL | LIVE]
TIMES = [(None, None), (99_000 * SECOND, None), (None, 1_000 * SECOND), (50_000 * SECOND, 50_100 * SECOND)]
PREFIXES = ["", "order-", "report-04", "nobody"]
PAGE = 50
# A page in each of eight statuses, and a stretch that is looked at twice, each row in a page of its own.
MOST_PAGE_ROWS, MOST_PAGE_PAGES, MOST_PAGE_STEPS = 4_600, 5_000, 400_000
QUERIES = [InstanceQuery(statuses, since, until, prefix, PAGE)
           for statuses, (since, until), prefix in itertools.product(STATUSES, TIMES, PREFIXES)]
FEW = [query for query in QUERIES if query.statuses in (RARE, LIVE) or None not in (query.created_from, query.created_to)]


def matches(query, one):
    return ((not query.statuses or one.status in query.statuses)
            and (query.created_from is None or one.created_at >= query.created_from)
            and (query.created_to is None or one.created_at < query.created_to)
            and one.instance_id.startswith(query.prefix))


def order(query):
    return (lambda one: one.instance_id) if query.prefix else lambda one: (one.created_at, one.instance_id)


@cache
def middle(query):
    """The token of a page half-way."""
    found = sorted((one for one in people() if matches(query, one)), key=order(query))
    one = found[len(found) // 2] if found else person(COUNT // 2)
    return token_of(query, InstanceRow(0, one.instance_id, "e", 0, 1, "flow", None, one.status, one.created_at, 0))


def shown(query):
    return f"{len(query.statuses)} statuses, {query.created_from} to {query.created_to}, {query.prefix!r}"


@pytest.mark.parametrize("query", QUERIES, ids=shown)
def test_a_page_touches_a_bounded_number_of_rows_whatever_the_filter(crowd, query):
    for part in (query, replace(query, after=middle(query))):
        statements = [page_statement(part)]
        if needs_stretch(part):
            statements = [stretch_statement(part), page_statement(part, stretch_end(crowd, part))]
        costs = [crowd.cost_of_query(statement) for statement in statements]
        plans = "\n".join(cost.plan for cost in costs)
        assert not any(cost.scanned for cost in costs), plans
        assert sum(cost.rows for cost in costs) <= MOST_PAGE_ROWS, plans
        assert sum(cost.pages for cost in costs) <= MOST_PAGE_PAGES, plans
        assert sum(cost.steps for cost in costs) <= MOST_PAGE_STEPS, plans


def stretch_end(crowd, query):
    rows = crowd.rows(stretch_statement(query))
    return rows[0][0] if rows else None


@pytest.mark.parametrize("query", [
    EndedQuery(statuses, since, until, PAGE, after) for statuses in (frozenset(), RARE, MANY, RARE | MANY)
    for since, until in TIMES for after in (None, f"{50_000 * SECOND}:order-000000")], ids=lambda query: str(query)[10:])
def test_a_page_of_ended_instances_touches_a_bounded_number_of_rows(crowd, query):
    cost = crowd.cost_of_query(ended_statement(query))
    assert not cost.scanned, cost.plan
    assert cost.rows <= MOST_ROWS, cost.plan
    assert cost.pages <= MOST_PAGES, cost.plan
    assert cost.steps <= MOST_STEPS, cost.plan


@pytest.mark.parametrize("query", FEW, ids=shown)
def test_all_pages_together_have_each_match_once_and_in_order(sqlite_crowd, new_postgres_crowd, query):
    wanted = [one.instance_id for one in sorted((one for one in people() if matches(query, one)), key=order(query))]
    for crowd in (sqlite_crowd, new_postgres_crowd):
        found, part = [], replace(query, page_size=1000)
        while True:
            page = crowd.page(part)
            found += [state.row.instance_id for state in page.states]
            if page.next is None:
                break
            part = replace(part, after=page.next)
        assert found == wanted
