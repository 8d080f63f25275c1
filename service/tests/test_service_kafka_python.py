"""The original service's own Python example, with the client it uses."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedding_service.pipeline import Pipeline
from service_fixtures import Stream

pytestmark = pytest.mark.slow


EXAMPLE = re.search(
    r"```python\n(.*?)```", (Path(__file__).parent / "original_service.md").read_text(encoding="utf-8"), re.DOTALL
)


def test_the_originals_python_example_works_as_written(stream: Stream, start_pipeline: Callable[..., Pipeline]) -> None:
    start_pipeline()
    assert EXAMPLE is not None
    example = EXAMPLE[1].replace("localhost:9092", stream.bootstrap_servers).replace("text-messages", stream.input)
    subprocess.run([sys.executable, "-c", example], check=True, timeout=60)

    (output,) = stream.outputs(1)
    document = json.loads(output.value() or b"")
    assert list(document) == [
        "id",
        "original_text",
        "embedding",
        "model_name",
        "timestamp",
        "embedding_dimension",
        "processing_timestamp",
        "input_timestamp",
        "input_source",
    ]
    assert (document["id"], document["original_text"]) == (
        "test-1",
        "This is a test message for embedding generation",
    )
    assert len(document["embedding"]) == document["embedding_dimension"] == 384
    assert (document["input_timestamp"], document["input_source"]) == (None, None)
    assert document["timestamp"] == pytest.approx(document["processing_timestamp"], abs=60), "Kafka's own"
    assert output.key() == b"test-1"
