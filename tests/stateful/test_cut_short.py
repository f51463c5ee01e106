"""What is done in several transactions may be cut short between two of them: the machine knows of that."""

from __future__ import annotations

from stateful.test_semantics import TaskHub


def test_a_recursive_purge_that_fails_after_its_first_level_has_purged_that(database_url):
    hub = type("Hub", (TaskHub,), {"url": database_url})()
    hub.begin(scripts=[[["start", [["start", [], "", 0]], "", 0]]], is_tight=False)
    hub.have_work_done(diligence=0)
    for _ in range(3):
        hub.be_diligent()
    hub.arm(how="unavailable", after=False, skip=1)

    hub.purge(instance="a", recursive=True)

    assert sorted(hub.stage.model.instances) == ["a", "a:0001"]
    hub.teardown()
