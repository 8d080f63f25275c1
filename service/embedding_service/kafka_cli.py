"""The command ``kafka-cli``: make topics, write texts, read records.

For a first look and for scripts. It joins no consumer group and commits nothing, so it never disturbs the workers.
"""

import argparse
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import NoReturn

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import ValidationError

from embedding_service.contract.kafka import ClientConfig, common_config, producer_config
from embedding_service.contract.settings import KafkaSettings

SERVERS_VARIABLE = "EMBEDDING_KAFKA__BOOTSTRAP_SERVERS"
BROKER_TIMEOUT_SECONDS = 10.0
INTERRUPTED = 130

_UNREACHABLE = (
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
)
# What goes wrong is told in one line; librdkafka would add its own.
_SILENT: ClientConfig = {"log_level": 0}


class CommandError(Exception):
    """What could not be done, in one line for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 for an error, 2 for wrong arguments, 130 for Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except CommandError as error:
        print(f"kafka-cli: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def create_topic(kafka: KafkaSettings, arguments: argparse.Namespace) -> None:
    """Make a topic; what isn't given is the broker's default."""
    topic = NewTopic(
        arguments.topic,
        num_partitions=arguments.partitions,
        replication_factor=arguments.replication_factor,
        config=dict(arguments.config),
    )
    with AdminClient(common_config(kafka) | _SILENT) as admin:
        future = admin.create_topics([topic], request_timeout=BROKER_TIMEOUT_SECONDS)[arguments.topic]
        try:
            future.result()
        except KafkaException as error:
            if not arguments.if_not_exists or error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            _print(f"topic {arguments.topic} exists already".encode())
        else:
            _print(f"created topic {arguments.topic}".encode())


def write(kafka: KafkaSettings, arguments: argparse.Namespace) -> None:
    """Write a text as an input record, and print where it went once the broker has it."""
    record = {
        "id": arguments.id or str(uuid.uuid4()),
        "text": arguments.text,
        "timestamp": time.time(),
        "source": arguments.source,
    }
    message = _deliver(kafka, arguments.topic, arguments.key, orjson.dumps(record))
    position = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
    _print(orjson.dumps({"id": record["id"]} | position))


def read(kafka: KafkaSettings, arguments: argparse.Namespace) -> None:
    """Print the value of each record as a line of JSON."""
    config = common_config(kafka) | {
        # The client insists on a group; with assigned partitions and no commits, none comes to be.
        "group.id": "kafka-cli",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
    }
    with Consumer(config | _SILENT) as consumer:
        positions = [
            TopicPartition(arguments.topic, partition, OFFSET_BEGINNING)
            for partition in _partitions(consumer, arguments.topic)
        ]
        if arguments.from_end:
            # Asked for now, not when the first fetch happens to start, so that the line below is true.
            positions = [_end(consumer, position) for position in positions]
            print(f"kafka-cli: reading {arguments.topic} from its end", file=sys.stderr)
        consumer.assign(positions)
        for count, message in enumerate(_messages(consumer, arguments.timeout), start=1):
            _print(json_line(message.value()))
            if count == arguments.max_messages:
                return
        # Silence may also be a broker that has gone.
        _partitions(consumer, arguments.topic)


def json_line(value: bytes | None) -> bytes:
    """Show a record's value as a line of JSON.

    JSON stays as it is, character by character, unless it spans lines; what isn't JSON becomes a JSON string, and a
    tombstone ``null``.
    """
    if value is None:
        return b"null"
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return orjson.dumps(value.decode(errors="backslashreplace"))
    stripped = value.strip()
    return orjson.dumps(document) if b"\n" in stripped or b"\r" in stripped else stripped


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kafka-cli", description="Make topics, write texts, read records.")
    servers = argparse.ArgumentParser(add_help=False)
    for where in (parser, servers):
        where.add_argument(
            "--bootstrap-servers",
            metavar="HOST:PORT[,...]",
            # No default here: the verb's parser would put it over what stands before the verb.
            default=argparse.SUPPRESS,
            help=f"the brokers (default: ${SERVERS_VARIABLE}, else localhost:9092)",
        )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_create_topic(verbs.add_parser("create-topic", parents=[servers], help="make a topic"))
    _add_write(verbs.add_parser("write", parents=[servers], help="write a text as an input record"))
    _add_read(verbs.add_parser("read", parents=[servers], help="print records, a line of JSON each"))
    return parser


def _add_create_topic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", type=_topic)
    parser.add_argument("--partitions", type=_positive, default=-1, help="default: the broker's")
    parser.add_argument("--replication-factor", type=_positive, default=-1, help="default: the broker's")
    parser.add_argument(
        "--config",
        type=_key_value,
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="of the topic, such as max.message.bytes=2097152",
    )
    parser.add_argument("--if-not-exists", action="store_true", help="a topic that exists is no error")
    parser.set_defaults(verb=create_topic)


def _add_write(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", type=_topic)
    parser.add_argument("text")
    parser.add_argument("--id", help="default: a new UUID")
    parser.add_argument("--key", help="the record's key (default: none)")
    parser.add_argument("--source", default="kafka-cli", help="default: %(default)s")
    parser.set_defaults(verb=write)


def _add_read(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", type=_topic)
    parser.add_argument("--max-messages", type=_positive, metavar="N", help="end after so many (default: no limit)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--from-beginning", action="store_true", help="start with the oldest record (the default)")
    start.add_argument("--from-end", action="store_true", help="only records written from now on")
    parser.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="S", help="end after S seconds without a record (default: 10)"
    )
    parser.set_defaults(verb=read)


def _topic(text: str) -> str:
    # What else makes a name legal, the broker says.
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a topic")
    return text


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above 0")
    return number


def _key_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE")
    return key, value


def _run(arguments: argparse.Namespace) -> None:
    kafka = _kafka_settings(arguments)
    try:
        arguments.verb(kafka, arguments)
    except KafkaException as error:
        _explain(error.args[0], arguments.topic, ",".join(kafka.bootstrap_servers))
    except (UnicodeEncodeError, orjson.JSONEncodeError):
        raise CommandError("the arguments are not valid UTF-8") from None


def _kafka_settings(arguments: argparse.Namespace) -> KafkaSettings:
    name, servers = "--bootstrap-servers", getattr(arguments, "bootstrap_servers", None)
    if servers is None:
        name, servers = SERVERS_VARIABLE, os.environ.get(SERVERS_VARIABLE)
    try:
        return KafkaSettings.model_validate({} if servers is None else {"bootstrap_servers": servers})
    except ValidationError as error:
        expected = error.errors()[0]["ctx"]["error"]
        raise CommandError(f"{name}: {servers!r}: expected {expected}") from None


def _explain(error: KafkaError, topic: str, servers: str) -> NoReturn:
    code = error.code()
    if code in _UNREACHABLE:
        raise CommandError(f"no broker answers at {servers} ({error.str()})")
    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise CommandError(f"no topic {topic} at {servers}; `kafka-cli create-topic {topic}` makes it")
    if code == KafkaError.TOPIC_ALREADY_EXISTS:
        raise CommandError(f"topic {topic} exists already at {servers}; with --if-not-exists that is no error")
    raise CommandError(f"topic {topic} at {servers}: {error.str()}")


def _partitions(client: Producer | Consumer, topic: str) -> list[int]:
    metadata = client.list_topics(topic, timeout=BROKER_TIMEOUT_SECONDS).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return list(metadata.partitions)


def _deliver(kafka: KafkaSettings, topic: str, key: str | None, value: bytes) -> Message:
    reports: list[tuple[KafkaError | None, Message]] = []
    in_time: ClientConfig = {"message.timeout.ms": int(BROKER_TIMEOUT_SECONDS * 1000)}
    with Producer(producer_config(kafka) | in_time | _SILENT) as producer:
        # A missing topic is told at once; to produce to it would take the whole timeout.
        _partitions(producer, topic)
        producer.produce(topic, value, key, on_delivery=lambda error, message: reports.append((error, message)))
        producer.flush()
    error, message = reports[0]
    if error is not None:
        raise KafkaException(error)
    return message


def _end(consumer: Consumer, position: TopicPartition) -> TopicPartition:
    _, end = consumer.get_watermark_offsets(position, timeout=BROKER_TIMEOUT_SECONDS)
    return TopicPartition(position.topic, position.partition, end)


def _messages(consumer: Consumer, timeout: float) -> Iterator[Message]:
    """Records as they come, until there was none for ``timeout`` seconds."""
    while (message := consumer.poll(timeout)) is not None:
        error = message.error()
        if error is not None:
            raise KafkaException(error)
        yield message


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
