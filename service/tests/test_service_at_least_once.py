"""What becomes of outputs whose partition has gone to another worker before they were acknowledged."""

import logging

import pytest
from confluent_kafka import Producer

from embedding_service.contract.kafka import producer_config
from embedding_service.delivery.at_least_once import AtLeastOnce
from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.delivery.output import Target
from embedding_service.records import InputRecord, Outcome, Tombstone
from kafka_helpers import read_all
from service_fixtures import STREAM_SECONDS, Stream
from waiting import wait_until

pytestmark = pytest.mark.slow


def outcome(partition: int, offset: int, assignment: int = 1) -> Tombstone:
    key = f"{partition}-{offset} of {assignment}".encode()
    return Tombstone(InputRecord("in", partition, offset, key, None, [], 0.0, 0.0, assignment))


class Deliveries:
    """A delivery whose first producer reaches nobody, as in an outage, and whose next ones reach the brokers."""

    def __init__(self, stream: Stream) -> None:
        self.offsets = OffsetTracker()
        self.offsets.assign([0, 1])
        self.told: list[Outcome] = []
        self.producers = 0
        self._stream = stream
        target = Target(stream.output, stream.dead_letter, "m", "v1:c", "json", include_text=True, same_partitions=True)
        self.delivery = AtLeastOnce(self._new_producer, target, self.offsets, self.told.extend)

    def _new_producer(self) -> Producer:
        self.producers += 1
        servers = "127.0.0.1:1" if self.producers == 1 else self._stream.bootstrap_servers
        kafka = self._stream.settings(kafka={"bootstrap_servers": servers}).kafka
        return Producer(producer_config(kafka), logger=logging.getLogger("unreachable"))

    def deliver(self, *outcomes: Tombstone) -> None:
        self.offsets.track(one.record for one in outcomes)
        self.delivery.deliver(outcomes)

    def written(self) -> list[bytes | None]:
        """The keys of what is on the topic once nothing is left to send."""

        def sent() -> bool:
            self.delivery.flush(0.1)
            return self.delivery.outstanding() == 0

        wait_until(sent, STREAM_SECONDS, "outputs aren't acknowledged")
        return [message.key() for message in read_all(self._stream.bootstrap_servers, self._stream.output)]


def test_outputs_of_a_lost_partition_that_wait_in_the_producer_are_not_written_when_the_brokers_are_back(
    stream: Stream,
) -> None:
    deliveries = Deliveries(stream)
    deliveries.deliver(outcome(0, 0), outcome(1, 0), outcome(0, 1), outcome(1, 1))
    deliveries.offsets.revoke([0])
    assert deliveries.written() == [b"1-0 of 1", b"1-1 of 1"]
    assert deliveries.producers == 2
    assert deliveries.offsets.to_commit() == {1: 2}
    assert len(deliveries.told) == 2
    deliveries.offsets.committed(1, 2)
    assert deliveries.offsets.in_flight() == (0, 0)


def test_a_partition_that_is_lost_and_comes_back_is_written_once_by_its_new_assignment(stream: Stream) -> None:
    deliveries = Deliveries(stream)
    deliveries.deliver(outcome(0, 0), outcome(0, 1))
    deliveries.offsets.revoke([0])
    deliveries.offsets.assign([0])
    deliveries.deliver(outcome(0, 0, assignment=2))
    assert deliveries.written() == [b"0-0 of 2"]
    assert deliveries.offsets.to_commit() == {0: 1}


def test_outcomes_that_come_from_the_model_after_their_partition_has_gone_are_not_written(stream: Stream) -> None:
    deliveries = Deliveries(stream)
    late = outcome(0, 0)
    deliveries.offsets.track([late.record])
    deliveries.offsets.revoke([0])
    deliveries.delivery.deliver([late])
    assert deliveries.written() == []
    assert deliveries.offsets.in_flight() == (0, 0)
    assert deliveries.told == []
