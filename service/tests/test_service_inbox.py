"""What waits for the model: tokenised while it waits, and dropped without a gap."""

import queue
import threading
from collections.abc import Iterable

from embedding_service.embedding import Prepared
from embedding_service.inbox import Inbox, Waiting
from embedding_service.records import InputRecord, Tombstone


def message(offset: int, partition: int = 0) -> Tombstone:
    return Tombstone(InputRecord("t", partition, offset, b"key", None, [], 0.0))


def inbox_of(*messages: Tombstone) -> Inbox:
    inbox = Inbox()
    inbox.put(messages)
    return inbox


def prepare(inbox: Inbox, items: list[Waiting]) -> None:
    inbox.prepare(items, [item.parsed for item in items if isinstance(item.parsed, Tombstone)])


def places(prepared: Iterable[Prepared]) -> list[tuple[int, int]]:
    return [(item.record.partition, item.record.offset) for item in prepared]


def test_the_model_takes_what_is_prepared_in_the_order_consumed() -> None:
    inbox = inbox_of(message(0), message(1), message(2))
    prepare(inbox, inbox.take_unprepared(2, 0))
    assert places(inbox.take(10, len, 0)) == [(0, 0), (0, 1)]
    assert inbox.take(10, len, 0) == []
    prepare(inbox, inbox.take_unprepared(2, 0))
    assert places(inbox.take(10, len, 0)) == [(0, 2)]


def test_the_model_is_woken_by_what_becomes_ready() -> None:
    inbox, taken = inbox_of(message(0)), queue.Queue[list[tuple[int, int]]]()
    model = threading.Thread(target=lambda: taken.put(places(inbox.take(1, len, 600))), daemon=True)
    model.start()
    prepare(inbox, inbox.take_unprepared(1, 0))
    assert taken.get(timeout=60) == [(0, 0)]


def test_the_model_takes_what_there_is_and_waits_for_no_more() -> None:
    inbox, taken = inbox_of(message(0), message(1)), queue.Queue[list[tuple[int, int]]]()
    prepare(inbox, inbox.take_unprepared(1, 0))
    model = threading.Thread(target=lambda: taken.put(places(inbox.take(1024, len, 600))), daemon=True)
    model.start()
    assert taken.get(timeout=60) == [(0, 0)]


def test_the_model_takes_no_more_than_fits() -> None:
    inbox = inbox_of(*(message(offset) for offset in range(5)))
    prepare(inbox, inbox.take_unprepared(10, 0))
    assert places(inbox.take(3, lambda _items: 2, 0)) == [(0, 0), (0, 1)]
    assert places(inbox.take(3, len, 0)) == [(0, 2), (0, 3), (0, 4)]


def test_what_is_being_tokenised_is_dropped_with_what_lies_before_and_behind_it() -> None:
    inbox = inbox_of(*(message(offset, partition) for offset in range(3) for partition in range(2)))
    prepare(inbox, inbox.take_unprepared(2, 0))
    in_hand = inbox.take_unprepared(2, 0)
    assert [(record.partition, record.offset) for record in inbox.drop([1])] == [(1, 0), (1, 1), (1, 2)]
    prepare(inbox, in_hand)
    prepare(inbox, inbox.take_unprepared(10, 0))
    assert places(inbox.take(10, len, 0)) == [(0, 0), (0, 1), (0, 2)], "nothing of partition 1 comes out behind a gap"


def test_a_closed_inbox_is_prepared_and_taken_to_its_end() -> None:
    inbox = inbox_of(message(0))
    inbox.close()
    assert not inbox.all_prepared
    prepare(inbox, inbox.take_unprepared(10, 0))
    assert inbox.all_prepared
    assert not inbox.closed
    inbox.take(10, len, 0)
    assert inbox.closed
