"""A worker's life: what the probes say while it loads, runs, stops, and when its surroundings fail."""

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import embedding_service.worker
from embedding_service.contract.reasons import TerminationReason, parse_termination
from embedding_service.encoders import loading
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.web import HttpServer
from embedding_service.worker import Worker
from kafka_broker import KafkaBroker
from kafka_helpers import create_topics, delete_topics, topic_names
from kafka_node import free_port
from service_fixtures import PARTITIONS, STREAM_SECONDS, Gate, Stream, make_stream
from waiting import wait_until
from worker_process import WorkerProcess

pytestmark = pytest.mark.slow


def wait_health(process: WorkerProcess, status: str) -> None:
    wait_until(
        lambda: (process.request("/health")[1] or {}).get("status") == status, STREAM_SECONDS, f"/health says {status}"
    )


def test_the_probes_and_the_endpoints_from_start_to_sigterm(
    stream: Stream, worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    log = tmp_path / "embedding_service.log"
    process = worker(logging={"file": str(log), "format": "json"})

    wait_until(lambda: process.request("/livez")[0] == 200, STREAM_SECONDS, "HTTP answers")
    assert process.request("/readyz") == (503, {"status": "loading"})
    assert process.request("/health")[1]["status"] == "starting"
    assert process.stats()["model"] is None
    assert process.request("/start", method="POST") == (200, {"status": "loading"})

    process.wait_ready()
    assert process.request("/livez") == (200, {"status": "alive"})
    wait_health(process, "healthy")
    stream.feed_texts(["one", "two"])
    stream.feed([b"not JSON", None], key=b"k")
    stream.outputs(3)
    wait_until(lambda: process.stats()["messages_processed"] == 4, STREAM_SECONDS, "all are counted")
    stats = process.stats()
    assert (stats["embeddings_generated"], stats["error_count"], stats["tombstones"]) == (2, 1, 1)
    assert stats["errors_by_reason"] == {"InvalidJson": 1}
    assert stats["error_rate"] == 0.25
    assert stats["messages_per_minute"] == 4
    assert stats["last_processed_timestamp"] > 1_700_000_000
    assert 0 < stats["latency_seconds"]["p50"] <= stats["latency_seconds"]["p99"]
    assert (stats["model"]["device"], stats["model"]["backend"]) == ("cpu", "openvino")
    # Which one "auto" means, goes by the processor.
    assert stats["model"]["precision"] in ("float32", "bfloat16")
    assert (stats["model"]["dimension"], stats["model"]["max_length"], stats["model"]["source"]) == (
        384,
        256,
        "package",
    )
    assert process.request("/health")[1]["messages_processed"] == 4
    metrics = process.request("/metrics")[1]
    assert "embedding_messages_embedded_total 2.0" in metrics
    assert 'embedding_messages_dead_lettered_total{reason="InvalidJson"} 1.0' in metrics
    assert stats["model"]["contract"] in metrics
    status, config = process.request("/config")
    assert (status, config["kafka"]["input_topic"]) == (200, stream.input)

    assert process.request("/stop", method="POST") == (200, {"status": "stopped"})
    assert process.request("/stop", method="POST") == (200, {"status": "stopped"})
    assert process.request("/readyz") == (503, {"status": "stopped"})
    assert process.request("/livez")[0] == 200
    assert process.request("/health")[1]["status"] == "stopped"
    stream.feed_texts(["while stopped"], prefix="stopped")
    assert process.request("/start", method="POST")[0] == 200
    process.wait_ready()
    assert "stopped-0" in {(message.key() or b"").decode() for message in stream.outputs(4)}

    assert process.terminate() == 0
    assert process.termination_log == ""
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines == process.stderr.splitlines()
    assert all(line.startswith('{"time": ') for line in lines)


def test_a_stop_while_the_model_loads_holds_until_a_start(worker: Callable[..., WorkerProcess]) -> None:
    process = worker()
    wait_until(lambda: process.request("/livez")[0] == 200, STREAM_SECONDS, "HTTP answers")
    assert process.request("/stop", method="POST") == (200, {"status": "loading"})
    wait_until(lambda: process.stats()["model"], STREAM_SECONDS, "the model is loaded")
    assert process.request("/readyz") == (503, {"status": "stopped"})
    assert process.request("/start", method="POST")[0] == 200
    process.wait_ready()


def test_a_token_guards_everything_but_the_probes_and_the_metrics(
    worker: Callable[..., WorkerProcess],
) -> None:
    process = worker(environ={"EMBEDDING_HTTP__TOKEN": "s3cret-token"}).wait_ready()
    for path in ("/livez", "/readyz", "/metrics"):
        assert process.request(path)[0] == 200
    for path, method in (
        ("/health", "GET"),
        ("/stats", "GET"),
        ("/config", "GET"),
        ("/stop", "POST"),
        ("/start", "POST"),
    ):
        assert process.request(path, method=method)[0] == 401
        assert process.request(path, method=method, token="wrong")[0] == 401
    status, config = process.request("/config", token="s3cret-token")
    assert (status, config["http"]["token"]) == (200, "**********")
    assert process.request("/stop", method="POST", token="s3cret-token") == (200, {"status": "stopped"})
    assert process.terminate() == 0
    assert "s3cret-token" not in process.stderr


def test_control_off_refuses_start_and_stop_and_nothing_else(worker: Callable[..., WorkerProcess]) -> None:
    process = worker(http={"control": "off"}).wait_ready()
    for path in ("/stop", "/start"):
        assert process.request(path, method="POST")[0] == 403
    for path in ("/health", "/stats", "/config"):
        assert process.request(path)[0] == 200
    assert process.request("/readyz")[0] == 200
    assert "http.control is open" not in process.stderr


def test_an_open_control_warns_at_start_and_get_does_not_stop(worker: Callable[..., WorkerProcess]) -> None:
    process = worker().wait_ready()
    assert "http.control is open" in process.stderr
    assert process.request("/stop")[0] == 405


def test_livez_fails_where_a_stage_hangs_and_recovers_with_it(
    stream: Stream, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(model)
    monkeypatch.setattr(embedding_service.worker, "_LIVE_SECONDS", 1.0)
    monkeypatch.setattr(loading, "load", lambda _settings: replace(model, encoder=gate))
    worker = Worker(stream.settings(http={"host": "127.0.0.1", "port": free_port()}))
    server = HttpServer(worker)
    server.start()
    try:
        worker.load()
        stream.feed_texts(["a"])
        wait_until(lambda: livez(worker) == 503, STREAM_SECONDS, "/livez says that it hangs")
        gate.open.set()
        wait_until(lambda: livez(worker) == 200, STREAM_SECONDS, "/livez says that it moves")
    finally:
        worker.stop()
        server.stop()


def livez(worker: Worker) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.settings.http.port}/livez") as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_lag(process: WorkerProcess, *partitions: int) -> None:
    nothing = {str(number): 0 for number in partitions}
    wait_until(lambda: process.request("/stats")[1]["lag"] == nothing, STREAM_SECONDS, f"/stats has lag {nothing}")


def test_a_broker_that_goes_away_does_not_unready_and_nothing_is_lost_when_it_comes_back(
    private_kafka: KafkaBroker, unique: str, tmp_path: Path
) -> None:
    stream = make_stream(private_kafka, unique)
    with WorkerProcess(tmp_path, {"kafka": stream.kafka}) as process:
        process.wait_ready()
        stream.feed_texts(["before"] * 20, prefix="before")
        stream.outputs(20)
        wait_lag(process, 0, 1, 2)
        private_kafka.kill()
        wait_health(process, "degraded")
        # What was the lag, nobody knows any more.
        wait_lag(process)
        assert "embedding_consumer_lag{" not in process.request("/metrics")[1]
        assert process.request("/readyz")[0] == 200
        assert process.request("/livez")[0] == 200
        private_kafka.restart()
        stream.feed_texts(["after"] * 20, prefix="after")
        # What was not committed when the broker went may come twice.
        wait_until(
            lambda: len({message.key() for message in stream.outputs()}) == 40, STREAM_SECONDS, "all texts are embedded"
        )
        wait_health(process, "healthy")
        stream.wait_caught_up()
        wait_lag(process, 0, 1, 2)
        assert process.terminate() == 0


def test_an_unreachable_broker_at_the_start_is_waited_for(
    private_kafka: KafkaBroker, unique: str, tmp_path: Path
) -> None:
    stream = make_stream(private_kafka, unique)
    private_kafka.kill()
    with WorkerProcess(tmp_path, {"kafka": stream.kafka}) as process:
        said = f"kafka.bootstrap_servers: '{stream.bootstrap_servers}': can't be reached"
        wait_until(lambda: said in process.stderr, 90, "it says so")
        assert process.request("/readyz") == (503, {"status": "connecting"})
        assert process.request("/livez")[0] == 200
        private_kafka.restart()
        process.wait_ready()
        assert process.terminate() == 0


def test_a_worker_that_waits_for_a_broker_ends_at_once_on_sigterm(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, {"kafka": {"bootstrap_servers": f"127.0.0.1:{free_port()}"}}) as process:
        wait_until(lambda: "can't be reached" in process.stderr, 90, "it waits for the broker")
        assert process.terminate() == 0


def ended(process: WorkerProcess) -> tuple[int, str, str]:
    """Exit code, reason, and the last line of standard error, which is the termination log's."""
    code = process.wait()
    parsed = parse_termination(process.termination_log)
    assert parsed is not None, process.stderr
    reason, message = parsed
    assert process.stderr.splitlines()[-1] == f"{reason}: {message}"
    return code, reason, message


@pytest.mark.parametrize(("key", "topic"), [("input_topic", "no-such-input"), ("output_topic", "no-such-output")])
def test_a_missing_topic_ends_the_process_with_a_reason(
    worker: Callable[..., WorkerProcess], key: str, topic: str
) -> None:
    process = worker(kafka={key: topic})
    code, reason, message = ended(process)
    assert (code, reason) == (1, TerminationReason.TOPIC_MISSING)
    assert message.startswith(f"{process.config}: kafka.{key}: '{topic}': no such topic")
    assert f"kafka-cli create-topic {topic}" in message


def test_a_fault_of_a_variable_names_the_variable(worker: Callable[..., WorkerProcess]) -> None:
    _, _, message = ended(worker(environ={"EMBEDDING_KAFKA__INPUT_TOPIC": "no-such-topic"}))
    assert message.startswith("EMBEDDING_KAFKA__INPUT_TOPIC: 'no-such-topic': no such topic")


def test_a_missing_dead_letter_topic_ends_the_process_where_the_worker_must_not_make_it(
    stream: Stream, worker: Callable[..., WorkerProcess]
) -> None:
    process = worker(kafka={"create_dead_letter_topic": False})
    code, reason, message = ended(process)
    assert (code, reason) == (1, TerminationReason.TOPIC_MISSING)
    assert f"kafka.dead_letter_topic: '{stream.dead_letter}'" in message


def test_an_output_topic_that_is_deleted_ends_the_process_with_a_reason(
    stream: Stream, worker: Callable[..., WorkerProcess]
) -> None:
    process = worker().wait_ready()
    stream.feed_texts(["a"])
    stream.outputs(1)
    delete_topics(stream.bootstrap_servers, [stream.output])
    stream.feed_texts(["b"])
    code, reason, message = ended(process)
    assert (code, reason) == (1, TerminationReason.TOPIC_MISSING)
    assert stream.output in message


def test_a_worker_goes_on_when_a_deleted_input_topic_is_made_again(
    stream: Stream, worker: Callable[..., WorkerProcess]
) -> None:
    process = worker().wait_ready()
    stream.feed_texts(["a"])
    stream.outputs(1)
    delete_topics(stream.bootstrap_servers, [stream.input])
    wait_until(lambda: stream.input not in topic_names(stream.bootstrap_servers), STREAM_SECONDS, "the topic is gone")
    create_topics(stream.bootstrap_servers, [stream.input], partitions=PARTITIONS)
    stream.feed_texts(["b"], prefix="again")
    wait_until(lambda: stream.output_count() == 2, 200, "the new topic's text is embedded")
    assert process.terminate() == 0


def test_a_host_that_is_not_ours_ends_the_process_with_a_reason(worker: Callable[..., WorkerProcess]) -> None:
    process = worker(http={"host": "192.0.2.1"})
    _, reason, message = ended(process)
    assert reason is TerminationReason.CONFIGURATION_INVALID
    assert message.startswith(f"{process.config}: http.host: '192.0.2.1': can't listen on ")


@pytest.mark.parametrize(
    ("section", "reason", "says"),
    [
        pytest.param({"name": "no/such-model"}, TerminationReason.MODEL_NOT_FOUND, r"model\.name: 'no/such-model' can't be had", id="a name that no hub knows"),
        pytest.param({"name": "not a name"}, TerminationReason.MODEL_NOT_FOUND, r"model\.name: 'not a name' can't be had", id="no name at all"),
        pytest.param({"name": "/no/such/dir"}, TerminationReason.MODEL_NOT_FOUND, r"model\.name: '/no/such/dir' is not a directory", id="a directory that isn't there"),
        pytest.param({"name": "/usr"}, TerminationReason.MODEL_NOT_FOUND, r"model\.name: '/usr' has neither modules\.json nor config\.json", id="a directory without a model"),
        pytest.param({"device": "cuda"}, TerminationReason.DEVICE_UNAVAILABLE, r"model\.device: 'cuda': PyTorch sees no CUDA device", id="a GPU that isn't there"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_loaded_ends_the_process_with_a_reason(
    worker: Callable[..., WorkerProcess], section: dict[str, str], reason: TerminationReason, says: str
) -> None:
    # A machine with a GPU hides it here.
    process = worker(model=section, environ={"CUDA_VISIBLE_DEVICES": ""})
    code, told, message = ended(process)
    assert (code, told) == (1, reason)
    assert re.match(re.escape(f"{process.config}: ") + says, message), message


def test_broken_weights_end_the_process_with_a_reason(worker: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (directory / "model.safetensors").write_bytes(b"not safetensors")
    code, reason, message = ended(worker(model={"name": str(directory)}))
    assert (code, reason) == (1, TerminationReason.MODEL_LOAD_FAILED)
    assert str(directory) in message


def test_a_port_in_use_ends_the_process_with_a_reason(worker: Callable[..., WorkerProcess]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, reason, message = ended(worker(http={"port": port}))
    assert (code, reason) == (1, TerminationReason.PORT_IN_USE)
    assert f"http.port: {port}: can't listen on 127.0.0.1:{port}: in use" in message
