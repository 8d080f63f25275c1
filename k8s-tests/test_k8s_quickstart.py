"""The quick start of a user with a cluster: the very manifest of local mode, Kafka's own tools, kubectl."""

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedding_service.encoders.protocol import LoadedModel
from kafka_helpers import delete_topics, read_all
from kafka_tools import kafka_tool
from real_texts import short
from system_fixtures import REPOSITORY, Pipeline, System

# The texts are embedded twice, here and in the cluster, as fast as a busy machine lets them be.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200, func_only=True)]

TEXTS = 1000
TOPICS = ("text-messages", "embeddings", "embeddings-deadletter")


def shown(pipeline: Pipeline) -> dict[str, str]:
    """The row of ``kubectl get embp``, by its header."""
    header, row = pipeline.kubectl("get", "embp", pipeline.name).splitlines()
    starts = [header.index(name) for name in header.split()]
    return {header[a:b].strip(): row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)}


def test_texts_of_kafkas_console_producer_come_out_as_the_models_vectors_and_kubectl_tells_the_truth(
    system: System, namespace: str, model: LoadedModel
) -> None:
    quickstart = (REPOSITORY / "examples" / "quickstart.yaml").read_text(encoding="utf-8")
    system.cluster.kubectl("apply", "--namespace", namespace, "-f", "-", input=quickstart)
    pipeline = Pipeline(system, namespace, "quickstart")
    pipeline.wait_until_ready()

    texts, servers = short(TEXTS), system.kafka.bootstrap_servers
    lines = "".join(json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts))
    kafka_tool("kafka-console-producer", "--bootstrap-server", servers, "--topic", "text-messages", stdin=lines)
    records = [
        json.loads(record.value() or b"") for record in read_all(servers, "embeddings", count=TEXTS, timeout=600)
    ]

    assert sorted(int(record["id"]) for record in records) == list(range(TEXTS))
    vectors = np.array([record["embedding"] for record in sorted(records, key=lambda record: int(record["id"]))])
    reference = SentenceTransformer(model.path, device="cpu").encode(list(texts), show_progress_bar=False)
    assert np.einsum("ij,ij->i", vectors, reference).min() >= 0.9999

    pipeline.until(lambda: shown(pipeline)["LAG"] == "0", "kubectl shows a lag")
    row = shown(pipeline)
    assert (row["READY"], row["REPLICAS"], row["AVAILABLE"], row["LAG"]) == ("True", "1", "1", "0")
    # A worker that is busy may not answer at once when it is asked for its model.
    pipeline.until(lambda: "model" in pipeline.status, "the status has no model")
    assert pipeline.status["model"]["dimension"] == 384

    pipeline.patch({"replicas": 0})
    pipeline.wait("WorkersReady", "False", "ScaledToZero")
    # One that is ending would embed some more.
    pipeline.until(lambda: not pipeline.pods(), "a worker is still there")
    kafka_tool("kafka-console-producer", "--bootstrap-server", servers, "--topic", "text-messages", stdin=lines)
    pipeline.until(lambda: shown(pipeline)["LAG"] == str(TEXTS), "kubectl shows another lag than the brokers have")
    pipeline.wait("CaughtUp", "False", "Behind")
    pipeline.delete()
    delete_topics(servers, TOPICS)
