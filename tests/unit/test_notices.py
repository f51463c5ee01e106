"""What hosts tell each other: what a group has to tell, and how it travels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durabletask_sql.ids import partition_of
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.ports.wakeups import News
from durabletask_sql.storage.notices import Notice, decode_notice, encode_notices

PARTITIONS = 16


def keys(ids):
    return frozenset(InstanceKey(partition_of(one, PARTITIONS), one) for one in ids)


def decoded(payloads):
    return [decode_notice(payload, PARTITIONS) for payload in payloads]


IDS = st.frozensets(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=256), max_size=40)
NEWS = st.builds(News, work=IDS.map(keys), scan=st.frozensets(st.integers(0, 15)), delayed=st.frozensets(st.integers(0, 15)),
                 tasks=st.booleans(), changed=IDS.map(keys), anything=st.booleans())


@given(NEWS)
def test_news_arrive_as_they_were_told_in_payloads_that_postgresql_takes(news):
    payloads = encode_notices(77, news)
    assert all(len(payload.encode()) < 8_000 for payload in payloads)
    notices = decoded(payloads)
    assert {notice.host_id for notice in notices} == {77}
    assert News.together([notice.news for notice in notices]) == news


def test_work_for_many_instances_is_told_by_partition():
    work = keys(f"one-{number}" for number in range(1_000))
    (notice,) = decoded(encode_notices(77, News(work)))
    assert notice.news == News(scan=frozenset(key.partition for key in work))


@pytest.mark.parametrize("what", ["work", "changed"])
def test_an_id_that_no_payload_can_hold_is_told_as_something_to_look_for(what):
    ids = ["a", *("\x01" * 1_998 + end for end in ("b", "c")), "z"]
    payloads = encode_notices(77, News(**{what: keys(ids)}))
    assert all(len(payload.encode()) < 8_000 for payload in payloads)
    news = News.together([notice.news for notice in decoded(payloads)])
    assert news == News(**{what: keys(["a", "z"])}, anything=True)
    assert len(payloads) == 2


def test_so_many_partitions_that_no_payload_can_hold_them_are_told_as_something_to_look_for():
    every = frozenset(range(1_024))
    payloads = encode_notices(1 << 62, News(scan=every, delayed=every, tasks=True))
    assert all(len(payload.encode()) < 8_000 for payload in payloads)
    assert News.together([notice.news for notice in decoded(payloads)]) == News(anything=True)


def test_no_news_are_a_beat():
    assert decoded(encode_notices(77, News())) == [Notice(77, News())]
    assert not News()
    assert News(tasks=True)


@pytest.mark.parametrize("payload", ["", "hello", "[]", "{}", "7", '{"from":"x"}', '{"from":7,"work":3}', '{"from":7,"scan":["x"]}',
                                     '{"from":7,"work":[1]}'])
def test_what_no_host_has_sent_is_told_apart(payload):
    assert decode_notice(payload, PARTITIONS) is None
