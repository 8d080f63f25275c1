"""What does an output record weigh in each encoding? Real texts, the default model's vectors, a real Kafka's own files.

Prints a table, with the texts and without; writes it to ``out/benchmarks/output_size.json``.
"""

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import NamedTuple, get_args

from confluent_kafka import Producer

from embedding_service.contract.kafka import producer_config
from embedding_service.contract.outputs import Encoding
from embedding_service.contract.settings import KafkaSettings, ModelSettings
from embedding_service.delivery.output import Target, to_record
from embedding_service.embedding import Embedder, Preparation, Window
from embedding_service.encoders import loading
from embedding_service.records import Embedded, InputRecord, TextMessage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "testing"))

from kafka_broker import KafkaBroker  # noqa: E402 - needs the path above
from kafka_helpers import create_topics  # noqa: E402 - as above
from kafka_tools import kafka_tool  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above

TEXTS = 2_000
CONTRACT = "v1:" + 32 * "0"
OUTPUT = ROOT / "out" / "benchmarks" / "output_size.json"


class Weight(NamedTuple):
    """Bytes of a record in the mean: its value; its key and headers; in the broker's files, whose batches are lz4."""

    encoding: str
    text: bool
    value: float
    beside: float
    stored: float


def main() -> None:
    """Measure and report."""
    outcomes = embedded(long_tailed(TEXTS))
    text_bytes = mean(len(outcome.message.text.encode()) for outcome in outcomes)
    with KafkaBroker(own=True) as kafka:
        weights = [
            weigh(kafka.bootstrap_servers, encoding, outcomes, text=text)
            for text in (True, False)
            for encoding in get_args(Encoding)
        ]
    report(weights, text_bytes)


def embedded(texts: Sequence[str]) -> list[Embedded]:
    """The texts as records with all fields, and their vectors."""
    now = time.time()
    messages = [
        TextMessage(InputRecord("texts", 0, number, None, b"", [], now), f"document-{number}", text, now, "docstrings")
        for number, text in enumerate(texts)
    ]
    model = loading.load(ModelSettings())
    encoder = model.encoder
    windows: list[Window] = []
    embedder = Embedder(encoder, model.batch_tokens, model.batch_cost, lambda _report: None, windows.append)
    embedder.start(Preparation(encoder).prepare(messages))
    while not embedder.is_idle:
        embedder.advance()
    return [outcome for outcome in windows[0].ordered() if isinstance(outcome, Embedded)]


def weigh(servers: str, encoding: Encoding, outcomes: Sequence[Embedded], *, text: bool) -> Weight:
    """Write all as a worker does, to a topic of one partition."""
    topic = f"{encoding}-{'with' if text else 'without'}-text"
    create_topics(servers, [topic], partitions=1)
    target = Target(topic, "dead", ModelSettings().name, CONTRACT, encoding, include_text=text, same_partitions=True)
    now = time.time()
    records = [to_record(outcome, target, now)[1] for outcome in outcomes]
    with Producer(producer_config(KafkaSettings(bootstrap_servers=(servers,)))) as producer:
        for record in records:
            producer.produce(topic, record.value, record.key, headers=list(record.headers))
        producer.flush()
    value = mean(len(record.value or b"") for record in records)
    beside = mean(record.size for record in records) - value
    return Weight(encoding, text, value, beside, stored_bytes(servers, topic) / len(records))


def stored_bytes(servers: str, topic: str) -> int:
    """How large the topic's files are."""
    said = kafka_tool("kafka-log-dirs", "--bootstrap-server", servers, "--describe", "--topic-list", topic)
    (described,) = (json.loads(line) for line in said.splitlines() if line.startswith("{"))
    return sum(
        int(partition["size"])
        for broker in described["brokers"]
        for directory in broker["logDirs"]
        for partition in directory["partitions"]
    )


def report(weights: Sequence[Weight], text_bytes: float) -> None:
    """Print the table and write the figures."""
    result = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": machine("torch", "sentence-transformers", "confluent-kafka"),
        "texts": TEXTS,
        "text_bytes": text_bytes,
        "weights": [weight._asdict() for weight in weights],
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"{TEXTS:,} texts of {text_bytes:,.0f} bytes in the mean; bytes of a record:\n")
    print("| encoding | text | value | key and headers | stored |\n|---|---|---|---|---|")
    for encoding, text, value, beside, stored in weights:
        print(f"| {encoding} | {'yes' if text else 'no'} | {value:,.0f} | {beside:,.0f} | {stored:,.0f} |")


if __name__ == "__main__":
    main()
