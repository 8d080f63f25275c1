"""What the operator asks a consumer group's coordinator, and that no answer, or none, ends it."""

import gc
import multiprocessing
import signal
import threading
from multiprocessing.synchronize import Event
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from embedding_operator import kafka_requests
from embedding_operator.brokers import Brokers, BrokersError, Wanted
from embedding_operator.observed import Topic
from embedding_service.contract.kafka import Connection
from kafka_access import Acl, allow, set_password
from kafka_broker import KafkaBroker
from kafka_helpers import Record, create_topics, produce
from kafka_listeners import SASL_TLS

pytestmark = pytest.mark.slow

PASSWORD = "open-sesame"
SECONDS = 60.0
THREADS = 8
RESTARTS = 2


def ask_on(servers: str, topic: str, stop: Event) -> None:
    """Ask for many groups, from many threads, until told to stop."""

    def ask(thread: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                kafka_requests.committed(Connection((servers,)), f"{topic}-{thread}-{number}", Topic(topic, "", 1))
            except KafkaException:
                continue

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_coordinator_that_ends_while_it_is_asked_takes_nobody_with_it(
    private_kafka: KafkaBroker, unique: str
) -> None:
    create_topics(private_kafka.bootstrap_servers, [unique], partitions=1)
    processes = multiprocessing.get_context("spawn")
    stop = processes.Event()
    asking = processes.Process(target=ask_on, args=(private_kafka.bootstrap_servers, unique, stop), daemon=True)
    asking.start()
    for _ in range(RESTARTS):
        private_kafka.kill()
        private_kafka.restart()
    stop.set()
    asking.join(SECONDS)
    assert asking.exitcode == 0, f"ended by {signal.Signals(-asking.exitcode).name}" if asking.exitcode else "hangs"


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


def test_a_client_that_is_dropped_ends_there_and_not_in_whatever_thread_collects_garbage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_requests, "REQUEST_SECONDS", 0.5)
    gc.collect()
    gc.disable()
    try:
        brokers = Brokers()
        with pytest.raises(BrokersError):
            brokers.client(Connection(("127.0.0.1:1",))).configs(("topic",))
        del brokers
        left: list[Any] = [found for found in gc.get_objects() if isinstance(found, AdminClient)]
        assert not left
    finally:
        gc.enable()
