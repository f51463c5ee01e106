"""Large texts are taken out of framed events and put back byte for byte, whatever the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import TAG, delimited, frame, frame_all, iter_events
from durabletask_sql.protocol.texts import FIRST, INPUT, OUTPUT, put_back, read_refs, take_out

THRESHOLD = 16
START = events.Start("flow", "one", "execution")

texts = st.text(max_size=60) | st.sampled_from(["https://host/a?b=c#d" * 3, "\0" * 40, "😀" * 20, "blob:v1:container:name" * 2])
details = st.recursive(
    st.builds(pb.TaskFailureDetails, errorType=texts, errorMessage=texts),
    lambda inner: st.builds(lambda text, cause: pb.TaskFailureDetails(errorMessage=text, innerFailure=cause), texts, inner),
    max_leaves=4)
known = st.one_of(
    st.builds(lambda text: events.execution_started(1, events.Start("flow", "one", "execution", input=text)), texts),
    st.builds(lambda text: events.execution_completed(1, 2, 1, text, None), texts),
    st.builds(lambda text, failure: events.execution_completed(1, 2, 3, text, failure), texts, details),
    st.builds(lambda text: events.task_completed(1, 2, text), texts),
    st.builds(lambda failure: events.task_failed(1, 2, failure), details),
    st.builds(lambda name, text: events.event_raised(1, name, text), texts, texts),
    st.builds(lambda text: events.execution_terminated(1, text, recurse=True), texts),
    st.builds(lambda tags: pb.HistoryEvent(taskScheduled=pb.TaskScheduledEvent(name="a", tags=tags)),
              st.dictionaries(texts, texts, max_size=3)),
).map(lambda event: event.SerializeToString())
# Fields of later versions: unknown numbers, and known ones of another type; and bytes that are nothing.
unknown = st.builds(lambda body, number, value: body + delimited(bytes([number << 3 | 2]), value) + bytes([9 << 3, 7]),
                    known, st.integers(1, 15), st.binary(max_size=60))
bodies = known | unknown | st.binary(max_size=80)
lists = st.lists(bodies, max_size=6).map(lambda found: b"".join(delimited(bytes([TAG]), body) for body in found))


@given(data=lists, threshold=st.integers(1, 40), first=st.integers(0, 3), data_of=st.data())
def test_putting_back_is_the_inverse_of_taking_out(data, threshold, first, data_of):
    results = [event.executionCompleted.result.value.encode() for event in parsed(data)]
    output = data_of.draw(st.sampled_from([None, *results]))
    taken = take_out(data, threshold, first, output)
    if taken is not None:
        refs = read_refs(taken.refs)
        kept_elsewhere = {OUTPUT: output}
        kept_elsewhere.update((INPUT, data_at(data, taken, ref)) for ref in refs if ref.payload_id == INPUT)
        assert put_back(taken.events, taken.refs, {**taken.texts, **kept_elsewhere}) == data
        assert len(taken.events) + sum(ref.size for ref in refs) == len(data)
        assert all(ref.size >= threshold for ref in refs)
        assert all(payload_id >= FIRST + first for payload_id in taken.texts)


def parsed(data):
    try:
        return list(iter_events(data))
    except Exception:  # bodies that are no events
        return []


def data_at(data, taken, wanted):
    """The bytes that stood in a gap: everything before it is there, gaps included."""
    before = sum(ref.size for ref in read_refs(taken.refs) if ref.offset < wanted.offset)
    return data[wanted.offset + before:wanted.offset + before + wanted.size]


@given(texts=st.lists(texts, min_size=1, max_size=5))
def test_small_texts_stay_and_large_ones_go(texts):
    data = frame_all(events.task_completed(1, 2, text) for text in texts)
    large = [text.encode() for text in texts if len(text.encode()) >= THRESHOLD]
    taken = take_out(data, THRESHOLD, 0)
    assert list(taken.texts.values() if taken is not None else ()) == large


def test_nothing_large_means_nothing_is_touched():
    assert take_out(frame(events.task_completed(1, 2, "small")), THRESHOLD, 0) is None
    assert take_out(b"", THRESHOLD, 0) is None


def test_the_input_of_an_execution_is_kept_once_with_its_creation():
    text = "i" * 100
    started = events.execution_started(1, events.Start("flow", "one", "execution", input=text))
    data = frame_all((events.orchestrator_started(1), started, events.event_raised(1, "e", "e" * 100)))
    taken = take_out(data, THRESHOLD, 0)
    assert [ref.payload_id for ref in read_refs(taken.refs)] == [INPUT, FIRST + 2]
    assert put_back(taken.events, taken.refs, {INPUT: text.encode(), **taken.texts}) == data


def test_only_the_start_of_an_execution_shares_its_input():
    """A carried event may look like a start, and a turn may begin with one: both keep their texts to themselves."""
    started = events.execution_started(1, events.Start("flow", "one", "execution", input="i" * 100))
    for first, data in ((0, frame_all((events.orchestrator_started(1), events.execution_started(1, START), started))),
                        (5, frame_all((events.orchestrator_started(1), started)))):
        taken = take_out(data, THRESHOLD, first)
        assert all(ref.payload_id >= FIRST for ref in read_refs(taken.refs))
        assert put_back(taken.events, taken.refs, taken.texts) == data


def test_an_output_is_kept_once_and_another_result_is_not_taken_for_it():
    data = frame(events.execution_completed(1, 2, 1, "o" * 100, None))
    shared = take_out(data, THRESHOLD, 7, b"o" * 100)
    assert ([ref.payload_id for ref in read_refs(shared.refs)], shared.texts) == ([OUTPUT], {})
    own = take_out(data, THRESHOLD, 7, b"x" * 100)
    assert own.texts == {FIRST + 7: b"o" * 100}


def test_a_failure_with_several_large_texts_is_one_payload():
    failure = pb.TaskFailureDetails(errorMessage="m" * 50, stackTrace={"value": "s" * 70},
                                    innerFailure=pb.TaskFailureDetails(errorMessage="n" * 30))
    data = frame(events.task_failed(1, 2, failure))
    taken = take_out(data, THRESHOLD, 4)
    assert sorted(map(len, taken.texts.values())) == [150]
    assert put_back(taken.events, taken.refs, taken.texts) == data


@pytest.mark.parametrize("found", [{}, {FIRST: b"x" * 99}, {FIRST: b""}])
def test_a_text_that_is_missing_or_too_short_is_told(found):
    taken = take_out(frame(events.task_completed(1, 2, "x" * 100)), THRESHOLD, 0)
    with pytest.raises(MalformedFrameError, match=f"payload {FIRST}"):
        put_back(taken.events, taken.refs, found)


@pytest.mark.parametrize("size", [99, 101])
def test_an_input_of_another_size_is_told(size):
    started = events.execution_started(1, events.Start("flow", "one", "execution", input="i" * 100))
    taken = take_out(frame_all((events.orchestrator_started(1), started)), THRESHOLD, 0)
    with pytest.raises(MalformedFrameError, match=f"has {size} bytes"):
        put_back(taken.events, taken.refs, {INPUT: b"i" * size})


@pytest.mark.parametrize("refs", [b"", b"x", b"x" * 27])
def test_damaged_references_are_told(refs):
    with pytest.raises(MalformedFrameError, match="references"):
        read_refs(refs)
