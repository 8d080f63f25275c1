"""What the operator asks Kafka about groups and offsets, and that no answer, or none, ends it."""

import multiprocessing
import signal
import threading
from concurrent.futures import Future
from multiprocessing.synchronize import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from embedding_operator import kafka_requests
from embedding_operator.brokers import Brokers, BrokersError, Wanted
from embedding_operator.observed import Topic
from embedding_service.contract.kafka import Connection
from kafka_access import Acl, allow, set_password
from kafka_broker import KafkaBroker
from kafka_helpers import Record, create_topics, produce
from kafka_listeners import SASL_TLS

PASSWORD = "open-sesame"
SECONDS = 60.0
THREADS = 8
RESTARTS = 2


def ask_about_groups(servers: str, topic: str, stop: Event) -> None:
    """Ask for many groups, from many threads, until told to stop."""

    def ask(thread: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                kafka_requests.committed(
                    {"bootstrap.servers": servers, "log_level": 0}, f"{topic}-{thread}-{number}", Topic(topic, "", 1)
                )
            except KafkaException:
                continue

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_a_coordinator_that_ends_while_it_is_asked_takes_nobody_with_it(
    private_kafka: KafkaBroker, unique: str
) -> None:
    create_topics(private_kafka.bootstrap_servers, [unique], partitions=1)
    processes = multiprocessing.get_context("spawn")
    stop = processes.Event()
    asking = processes.Process(
        target=ask_about_groups, args=(private_kafka.bootstrap_servers, unique, stop), daemon=True
    )
    asking.start()
    for _ in range(RESTARTS):
        private_kafka.kill()
        private_kafka.restart()
    stop.set()
    asking.join(SECONDS)
    assert asking.exitcode == 0, f"ended by {signal.Signals(-asking.exitcode).name}" if asking.exitcode else "hangs"


@pytest.mark.slow
def test_a_group_that_may_not_be_asked_about_is_named_with_the_right_that_is_missing(
    secured_kafka: KafkaBroker, unique: str
) -> None:
    servers, user = secured_kafka.bootstrap_servers, f"user-{unique}"
    wanted = Wanted(f"{unique}-in", f"{unique}-out", f"{unique}-dead", unique, from_earliest=True)
    create_topics(servers, [wanted.input], partitions=1)
    produce(servers, [Record(wanted.input, value=b"x")])
    set_password(servers, user, PASSWORD)
    allow(servers, user, [Acl("DESCRIBE", "TOPIC", name) for name in wanted.topics])
    assert secured_kafka.certificates is not None
    connection = Connection(
        (secured_kafka.address(SASL_TLS),),
        tls=True,
        ca_pem=secured_kafka.certificates.ca_pem,
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=user,
        sasl_password=PASSWORD,
    )
    client = Brokers().client(connection)
    with pytest.raises(BrokersError, match=f"missing ACL: expected READ on consumer group '{unique}'") as raised:
        client.observe(wanted)
    assert raised.value.problem.reason == "AccessDenied"
    allow(servers, user, [Acl("DESCRIBE", "GROUP", unique)])
    progress = client.observe(wanted).progress
    assert progress is not None
    assert progress.lag == 1


class Leaders:
    """An AdminClient of a cluster in which one topic's partitions have these leaders; -1 for none."""

    def __init__(self, *leaders: int) -> None:
        self.leaders = leaders
        self.asked_for_offsets = False

    def list_topics(self, topic: str, timeout: float) -> Any:  # noqa: ARG002 - the client's own name
        partitions = {number: SimpleNamespace(leader=leader) for number, leader in enumerate(self.leaders)}
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=partitions)})

    def list_offsets(self, partitions: dict[Any, Any], **_: Any) -> dict[Any, Any]:
        self.asked_for_offsets = True
        return {at: answered(7) for at in partitions}


def answered(offset: int) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(SimpleNamespace(offset=offset))
    return future


# librdkafka ends the process, once in many thousand times, where it is asked for these offsets while it learns.
@pytest.mark.parametrize(
    "leaders",
    [
        pytest.param((), id="no partition is known"),
        pytest.param((1,), id="one of two"),
        pytest.param((1, -1), id="no leader"),
    ],
)
def test_offsets_of_partitions_whose_leaders_the_client_does_not_know_are_not_asked_for(
    leaders: tuple[int, ...],
) -> None:
    admin = Leaders(*leaders)
    with pytest.raises(KafkaException) as raised:
        kafka_requests.offsets(cast("AdminClient", admin), [Topic("texts", "", 2)])
    assert raised.value.args[0].code() == KafkaError.LEADER_NOT_AVAILABLE
    assert not admin.asked_for_offsets


def test_offsets_are_asked_for_once_the_client_knows_all_leaders() -> None:
    found = kafka_requests.offsets(cast("AdminClient", Leaders(1, 2)), [Topic("texts", "", 2)])
    assert found["texts"].ends == [7, 7]
