"""Clients' writes that manage what there is: purge (S-301 to S-307), ending at once, lists of what has ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.world import NOW, World, claim, in_world, room
from durabletask_sql.clock import FakeClock
from durabletask_sql.model.instances import ParentLink
from durabletask_sql.model.messages import MessageKind, NewTimer
from durabletask_sql.model.queries import EndedQuery, PurgeFilter
from durabletask_sql.model.status import TERMINAL, Status
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.service.purges import Purges

ENDS = sorted(TERMINAL)


async def end(w: World, instance_id: str, status: Status = Status.COMPLETED, at: int = NOW) -> None:
    row = await w.read(instance_id)
    after = replace(row, row_version=row.row_version + 1, status=status, history_count=row.history_count + 1,
                    completed_at=at)
    await w.commit(replace(w.turn(row, ended=True, output="out"), row=after))


async def ended(w: World, instance_id: str, status: Status = Status.COMPLETED, at: int = NOW, **changes: object) -> None:
    await w.create(instance_id, **changes)
    await end(w, instance_id, status, at)


async def family(w: World, parent: str, *children: str, **changes: object) -> None:
    """A parent that has run and waits for its children."""
    await w.create(parent, **changes)
    row = await w.read(parent)
    link = ParentLink(parent, row.execution_id, 5, "flow", None)
    made = [w.child(row, child) for child in children]
    await w.commit(w.turn(row, children=tuple(replace(one, row=replace(one.row, parent=link)) for one in made)))


async def there(w: World, *instance_ids: str) -> list[str]:
    found = await w.instances.statuses([w.key(instance_id) for instance_id in instance_ids])
    return sorted(key.instance_id for key in found)


def purges(w: World) -> Purges:
    return Purges(w.instances, FakeClock())


def test_a_purge_of_a_live_or_unknown_instance_deletes_nothing(database_url):
    async def test(w: World):
        await w.created("one")
        keys = [w.key("one"), w.key("nobody")]
        assert (await purges(w).purge(keys, recursive=False)).count == 0
        await end(w, "one")
        assert (await purges(w).purge(keys, recursive=False)).count == 1
        assert await w.instances.get(w.key("one"), payloads=False) is None
        assert (await purges(w).purge(keys, recursive=False)).count == 0

    in_world(database_url, test)


def test_a_purge_deletes_every_row_of_its_instance_and_none_of_a_longer_name(database_url):
    async def test(w: World):
        for name in ("abc", "abcd"):
            row = await w.created(name)
            await w.commit(w.turn(row, activities=(w.activity(row),)))
            await end(w, name)
        assert (await purges(w).purge([w.key("abc")], recursive=False)).count == 1
        assert {table: names for table in ("instances", "history", "payloads", "activity_queue", "control_queue")
                if (names := await w.names_in(table)) != {"abcd"}} == {"control_queue": set()}

    in_world(database_url, test)


def test_a_purge_of_one_execution_leaves_a_later_one(database_url):
    async def test(w: World):
        await ended(w, "one")
        old = await w.read("one")
        await ended(w, "one")
        assert await w.instances.purge({old.key: old.execution_id}) == frozenset()
        assert await w.instances.purge({old.key: (await w.read("one")).execution_id}) == {old.key}

    in_world(database_url, test)


def test_a_recursive_purge_takes_what_has_ended_below_and_leaves_what_lives(database_url):
    async def test(w: World):
        await family(w, "root", "done", "live")
        await family(w, "done", "below-done")
        await family(w, "live", "below-live")
        for name in ("below-done", "below-live", "done", "root"):
            await end(w, name)
        every = ("root", "done", "live", "below-done", "below-live")
        assert (await purges(w).purge([w.key("root")], recursive=True)).count == 3
        assert await there(w, *every) == ["below-live", "live"]
        assert (await purges(w).purge([w.key("live")], recursive=True)).count == 0
        assert await there(w, *every) == ["below-live", "live"]

    in_world(database_url, test)


def test_a_filter_names_statuses_and_a_half_open_range_of_creation_times(database_url):
    async def test(w: World):
        for number, status in enumerate(ENDS):
            await ended(w, f"i{number}", status, created_at=NOW + number)
        await w.create("live", created_at=NOW + 1)
        every = [f"i{number}" for number in range(len(ENDS))] + ["live"]
        assert (await purges(w).purge_matching(PurgeFilter(frozenset({Status.TERMINATED})), recursive=False)).count == 1
        assert (await purges(w).purge_matching(PurgeFilter(created_from=NOW + 1, created_to=NOW + 2),
                                               recursive=False)).count == 1
        assert await there(w, *every) == ["i0", "i2", "live"]
        done = await purges(w).purge_matching(PurgeFilter(), recursive=False)
        assert (done.count, done.is_complete) == (2, True)
        assert await there(w, *every) == ["live"]

    in_world(database_url, test)


def test_a_filter_that_names_only_live_statuses_matches_nothing(database_url):
    async def test(w: World):
        await ended(w, "done")
        await w.created("live")
        wanted = PurgeFilter(frozenset({Status.RUNNING, Status.PENDING}))
        assert (await purges(w).purge_matching(wanted, recursive=True)).count == 0
        assert await there(w, "done", "live") == ["done", "live"]

    in_world(database_url, test)


class _Expiring(FakeClock):
    """A clock on which every look takes a second."""

    def monotonic(self) -> float:
        self.advance(1)
        return super().monotonic()


def test_a_filter_purges_more_than_a_batch_and_stops_when_its_time_is_over(database_url):
    async def test(w: World):
        names = [f"i{number}" for number in range(250)]
        rows = [w.row(name, status=Status.COMPLETED, history_count=1) for name in names]
        await w.insert(rows)
        done = await Purges(w.instances, _Expiring()).purge_matching(PurgeFilter(seconds=1.5), recursive=False)
        assert (done.count, done.is_complete) == (100, False)
        done = await Purges(w.instances, _Expiring()).purge_matching(PurgeFilter(seconds=100), recursive=False)
        assert (done.count, done.is_complete) == (150, True)
        assert await there(w, *names) == []

    in_world(database_url, test)


def test_a_recursive_purge_that_is_cut_short_can_be_repeated(database_url):
    async def test(w: World):
        await family(w, "root", *(f"c{number}" for number in range(150)), created_at=NOW + 1)
        await w.end_all([*(f"c{number}" for number in range(150)), "root"])
        done = await Purges(w.instances, _Expiring()).purge_matching(PurgeFilter(created_from=NOW + 1, seconds=2.5),
                                                                     recursive=True)
        assert not done.is_complete
        assert done.count == 100
        assert "root" in await there(w, "root")
        again = await purges(w).purge_matching(PurgeFilter(created_from=NOW + 1), recursive=True)
        assert (done.count + again.count, again.is_complete) == (151, True)

    in_world(database_url, test)


def test_a_recursive_purge_leaves_what_was_given_a_childs_id_meanwhile(database_url):
    """Between the look at what is below and the purge a client makes the child anew, and that one ends as well."""
    async def test(w: World):
        await family(w, "root", "one", "two")
        await w.end_all(["one", "two", "root"])
        children = w.instances.children

        async def look(keys):
            found = await children(keys)
            if any(row.instance_id == "one" for row in found):
                await ended(w, "one")
            return found

        w.instances.children = look
        assert (await purges(w).purge([w.key("root")], recursive=True)).count == 2
        assert await there(w, "root", "one", "two") == ["one"]

    in_world(database_url, test)


def test_ending_at_once_needs_no_worker_and_makes_what_is_out_stale(database_url):
    async def test(w: World):
        await family(w, "parent", "child")
        child = await w.read("child")
        timer = NewTimer(child.key, child.execution_id, MessageKind.EVENT, NOW, b"\x1a\x00")
        await w.commit(w.turn(child, timers=(timer,), activities=(w.activity(child), w.activity(child, 2)), history=None),
                       activity_room=room(1))
        running = await w.read("child")
        await w.instances.send(w.message("child"))
        sent = await w.instances.terminate_now([child.key, w.key("nobody")], "enough", 5 * NOW)
        assert (sent.ended, sent.woken) == ({child.key}, {w.key("parent")})
        state = await w.instances.get(child.key, payloads=True)
        assert (state.row.status, state.output, state.row.completed_at) == (Status.TERMINATED, "enough", 5 * NOW)
        assert (await w.commit(w.turn(running))).outcomes[0].kind.value == "lost"
        assert await w.queue("child") == ()
        assert await w.names_in("timers") == set()
        told = [next(iter_events(row.events)) for row in await w.queue("parent") if row.kind is MessageKind.EVENT]
        assert told[0].subOrchestrationInstanceFailed.taskScheduledId == 5
        # What a worker has claimed may run to its end, the rest is gone.
        assert len((await w.load(activities=claim(9), claim_token=3)).activities) == 0
        gained = [event for page in [one async for one in w.instances.history(child.key, child.execution_id)]
                  for event in iter_events(page)]
        assert [event.WhichOneof("eventType") for event in gained][-3:] == [
            "orchestratorStarted", "executionTerminated", "executionCompleted"]
        assert state.row.history_count == running.history_count + 3

    in_world(database_url, test)


def test_ending_at_once_leaves_what_has_ended_and_tells_no_parent_that_ends_with_it(database_url):
    async def test(w: World):
        await family(w, "parent", "child")
        await ended(w, "done")
        before = await w.read("done")
        keys = [w.key(name) for name in ("child", "done", "parent")]
        sent = await w.instances.terminate_now(keys, None, 5 * NOW)
        assert sent.ended == {w.key("child"), w.key("parent")}
        assert await w.read("done") == before
        assert await w.names_in("control_queue") == set()

    in_world(database_url, test)


def test_lists_of_ended_instances_page_by_completion_and_id_under_inserts(database_url):
    async def test(w: World):
        for number in range(10):
            await ended(w, f"b{number}", at=NOW + number // 2)
        await w.created("live")
        seen, after = [], None
        while True:
            page = await w.instances.ended_ids(EndedQuery(page_size=3, after=after))
            seen += page.instance_ids
            await ended(w, f"a{len(seen)}", at=NOW + 1)
            after = page.next
            if after is None:
                break
            assert page.instance_ids[-1] in after
        assert [name for name in seen if name.startswith("b")] == [f"b{number}" for number in range(10)]
        assert len(seen) == len(set(seen))

    in_world(database_url, test)


@pytest.mark.parametrize(("query", "expected"), [
    (EndedQuery(), ["i0", "i1", "i2", "i3"]),
    (EndedQuery(page_size=4), ["i0", "i1", "i2", "i3"]),
    (EndedQuery(frozenset({Status.FAILED, Status.RUNNING})), ["i1"]),
    (EndedQuery(frozenset({Status.RUNNING})), []),
    (EndedQuery(completed_from=NOW + 1, completed_to=NOW + 3), ["i1", "i2"]),
])
def test_lists_of_ended_instances_filter_by_status_and_a_half_open_range(database_url, query, expected):
    async def test(w: World):
        for number, status in enumerate(ENDS):
            await ended(w, f"i{number}", status, at=NOW + number)
        await w.created("live")
        page = await w.instances.ended_ids(query)
        assert (list(page.instance_ids), page.next) == (expected, None)

    in_world(database_url, test)
