"""Fixtures of every test folder: a real Kafka, and names that no other test has."""

import itertools
import re
import signal
import uuid
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from announcing import announcer
from kafka_broker import KafkaBroker
from kafka_helpers import delete_topics, topic_names
from kafka_source import KafkaUnavailable

pytest_plugins = [
    "cluster_fixtures",
    "image_fixtures",
    "manual_clock",
    "service_fixtures",
    "stage_times",
    "system_fixtures",
]

# Hypothesis would count a pause of the machine as a fault of what it tests.
hypothesis.settings.register_profile("without a deadline", deadline=None)
hypothesis.settings.load_profile("without a deadline")

# In every name of this run, so that what it left in a given cluster can be told from what was there.
RUN = uuid.uuid4().hex[:8]
_numbers = itertools.count(1)

# A shell has what it starts in the background ignore Ctrl-C, and so would every process of these tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """Start a Kafka that all tests share; use ``unique`` in the names of topics and groups."""
    broker = _start(KafkaBroker(announce=announcer(request.config)))
    yield broker
    if not broker.started_here:
        servers = broker.bootstrap_servers
        delete_topics(servers, [name for name in topic_names(servers) if RUN in name])
    broker.stop()


@pytest.fixture
def private_kafka(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """Start a Kafka of this test's own, to pause, kill and restart."""
    broker = _start(KafkaBroker(own=True, announce=announcer(request.config)))
    yield broker
    broker.stop()


@pytest.fixture
def announce(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line that is seen whether the test passes or fails."""
    return announcer(request.config)


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """Make part of a name that no other test uses, legal in topics, groups and file names; at most 100 characters."""
    readable = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name.removeprefix("test_"))[:80].strip("-").lower()
    return f"{readable}-{RUN}-{next(_numbers)}"


def _start(broker: KafkaBroker) -> KafkaBroker:
    try:
        return broker.start()
    except KafkaUnavailable as error:
        problem = str(error)
    # Outside the handler, or pytest would show the same text twice.
    pytest.fail(problem, pytrace=False)
