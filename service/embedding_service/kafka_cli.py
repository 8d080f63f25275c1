"""The command ``kafka-cli``: make topics, write texts, read records, and send a text through a pipeline.

For a first look and for scripts. It joins no consumer group and commits nothing, so it never disturbs the workers. The
brokers and what they ask of a client come from the worker's variables, ``EMBEDDING_KAFKA__*``.
"""

import argparse
import os
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.cimpl import NewTopic

from embedding_service.brokers import Brokers
from embedding_service.contract.outputs import as_json
from embedding_service.contract.problems import SettingsError
from embedding_service.contract.settings import KafkaSettings, parse_settings
from embedding_service.messages import headers_of

VARIABLES = "EMBEDDING_KAFKA__"
SERVERS_VARIABLE = f"{VARIABLES}BOOTSTRAP_SERVERS"
TOPIC_POLL_SECONDS = 0.5
INTERRUPTED = 130

# A topic that was made a moment ago.
_NOT_YET = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION)


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


def create_topic(brokers: Brokers, arguments: argparse.Namespace) -> None:
    """Make a topic; what isn't given is the broker's default."""
    topic = NewTopic(
        arguments.topic,
        num_partitions=arguments.partitions,
        replication_factor=arguments.replication_factor,
        config=dict(arguments.config),
    )
    try:
        brokers.create_topic(topic)
    except KafkaException as error:
        if not arguments.if_not_exists or error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        _print(f"topic {arguments.topic} exists already".encode())
    else:
        _print(f"created topic {arguments.topic}".encode())


def write(brokers: Brokers, arguments: argparse.Namespace) -> None:
    """Write a text as an input record, and print where it went once the broker has it."""
    identity = arguments.id or str(uuid.uuid4())
    message = _write(brokers, arguments, identity)
    position = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
    _print(orjson.dumps({"id": identity} | position))


def read(brokers: Brokers, arguments: argparse.Namespace) -> None:
    """Print the value of each record, and of binary outputs what they stand for, as a line of JSON."""
    with Consumer(brokers.reader) as consumer:
        if arguments.from_end:
            # Asked for now, not when the first fetch happens to start, so that the line below is true.
            consumer.assign(brokers.ends(consumer, arguments.topic))
            print(f"kafka-cli: reading {arguments.topic} from its end", file=sys.stderr)
        else:
            partitions = brokers.partitions(consumer, arguments.topic)
            consumer.assign([TopicPartition(arguments.topic, partition, OFFSET_BEGINNING) for partition in partitions])
        for count, message in enumerate(brokers.messages(consumer, arguments.timeout), start=1):
            _print(json_line(_value(message)))
            if count == arguments.max_messages:
                return
        # Silence may also be a broker that has gone.
        brokers.partitions(consumer, arguments.topic)


def roundtrip(brokers: Brokers, arguments: argparse.Namespace) -> None:
    """Write a text to a pipeline's input topic, wait for its embedding in the output topic, and say how long it took.

    Topics that are still missing are waited for: whoever runs the pipeline may be about to make them.
    """
    started = time.monotonic()
    deadline = started + arguments.timeout
    identity = str(uuid.uuid4())
    with Consumer(brokers.reader) as consumer:
        for topic in (arguments.topic, arguments.output_topic):
            _wait_for_topic(brokers, consumer, topic, deadline)
        consumer.assign(brokers.ends(consumer, arguments.output_topic))
        _write(brokers, arguments, identity)
        print(f"kafka-cli: wrote a text to {arguments.topic}; waiting for its embedding", file=sys.stderr)
        output = _output(brokers, consumer, identity, deadline)
    if output is None:
        raise CommandError(
            f"no embedding in {arguments.output_topic} within {arguments.timeout:g} s of a text written to "
            f"{arguments.topic}; is a worker running?"
        )
    shown = {"id": identity, "model_name": output["model_name"], "embedding_dimension": output["embedding_dimension"]}
    _print(orjson.dumps(shown | {"seconds": round(time.monotonic() - started, 1)}))


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
    parser = argparse.ArgumentParser(
        prog="kafka-cli", description="Make topics, write texts, read records; see that a pipeline works."
    )
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
    _add_roundtrip(verbs.add_parser("roundtrip", parents=[servers], help="write a text, wait for its embedding"))
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


def _add_roundtrip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", type=_topic, metavar="input_topic")
    parser.add_argument("output_topic", type=_topic)
    parser.add_argument("text")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="S", help="fail after S seconds (default: 60)"
    )
    parser.set_defaults(verb=roundtrip, key=None, source="kafka-cli")


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
    brokers = Brokers(_kafka_settings(arguments))
    try:
        arguments.verb(brokers, arguments)
    except KafkaException as error:
        raise CommandError(brokers.explain(error.args[0], arguments.topic)) from None
    except (UnicodeEncodeError, orjson.JSONEncodeError):
        raise CommandError("the arguments are not valid UTF-8") from None


def _kafka_settings(arguments: argparse.Namespace) -> KafkaSettings:
    environ = {variable: value for variable, value in os.environ.items() if variable.startswith(VARIABLES)}
    servers = getattr(arguments, "bootstrap_servers", None)
    if servers is not None:
        environ[SERVERS_VARIABLE] = servers
    try:
        return parse_settings("", environ).kafka
    except SettingsError as error:
        problems = "; ".join(error.problems)
        raise CommandError(
            problems if servers is None else problems.replace(SERVERS_VARIABLE, "--bootstrap-servers")
        ) from None


def _write(brokers: Brokers, arguments: argparse.Namespace, identity: str) -> Message:
    record = {"id": identity, "text": arguments.text, "timestamp": time.time(), "source": arguments.source}
    return brokers.deliver(arguments.topic, arguments.key, orjson.dumps(record))


def _wait_for_topic(brokers: Brokers, consumer: Consumer, topic: str, deadline: float) -> None:
    """Wait until a topic is there and its partitions have leaders."""
    told = False
    while True:
        try:
            brokers.ends(consumer, topic)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise CommandError(brokers.explain(error.args[0], topic)) from None
        else:
            return
        if not told:
            print(f"kafka-cli: waiting for the topic {topic}", file=sys.stderr)
            told = True
        time.sleep(TOPIC_POLL_SECONDS)


def _output(brokers: Brokers, consumer: Consumer, identity: str, deadline: float) -> dict[str, Any] | None:
    """The output record with an id; ``None`` where there is none at the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        message = next(brokers.messages(consumer, left), None)
        document = _document(_value(message)) if message is not None else {}
        if document.get("id") == identity:
            return document
    return None


def _value(message: Message) -> bytes | None:
    """A record's value; of an output in the binary encoding the JSON that it stands for."""
    value = message.value()
    return None if value is None else as_json(value, headers_of(message) or [])


def _document(value: bytes | None) -> dict[str, Any]:
    """A record's value; empty where it is no JSON object, and so no output of a worker."""
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
