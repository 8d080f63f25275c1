"""Local mode end to end: the command as a person starts it, with the real worker and the real model."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AdminClient,
    ConfigResource,
    ResourceType,
)

from embedding_service.contract.outputs import vector
from kafka_broker import KafkaBroker
from kafka_helpers import create_topics
from waiting import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart.yaml"
SECONDS = 180.0
FIELDS = {
    "id",
    "original_text",
    "embedding",
    "model_name",
    "timestamp",
    "embedding_dimension",
    "processing_timestamp",
    "input_timestamp",
    "input_source",
}


class LocalRun:
    """``embedding-operator local`` as a process of its own group, with what it prints in files.

    ``stdin`` is what it reads; ``stdout`` is where its output goes in place of the file.
    """

    def __init__(
        self, folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL, stdout: int | None = None
    ) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self._output, self._errors = folder / "stdout", folder / "stderr"
        # Variables that are not the run's, and buffers as most people have them.
        environment = {"EMBEDDING_KAFKA__INPUT_TOPIC": "somebody-elses", "PYTHONUNBUFFERED": ""}
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("embedding-operator")), "local", *arguments],
                stdin=stdin,
                stdout=output if stdout is None else stdout,
                stderr=errors,
                env={**os.environ, **environment, "TMPDIR": str(self.temporary)},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in what it prints. Fails where the run ends without it."""

        def found() -> list[re.Match[str]]:
            ended = self.process.poll() is not None
            printed = self.errors + self.output
            matches = list(re.finditer(pattern, printed))
            assert matches or not ended, f"ended without {pattern!r}:\n{printed}"
            return matches

        return wait_until(found, SECONDS, f"waiting for {pattern!r}")[0]

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """As a terminal does it: to the whole process group."""
        os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """The exit code, after checking that nothing is left of the run."""
        code = self.process.wait(SECONDS)
        assert self.workers() == []
        assert list(self.temporary.glob("embedding-local-*")) == []
        assert "Traceback" not in self.errors
        return code

    def workers(self) -> list[int]:
        """The worker's process, recognised by the folder of its configuration."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:  # it has ended meanwhile
                continue
            if str(self.temporary).encode() in command and b"--termination-log" in command:
                found.append(int(entry.name))
        return found

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(SECONDS)


@pytest.fixture
def runs() -> Iterator[list[LocalRun]]:
    """The runs of a test, ended with it."""
    started: list[LocalRun] = []
    yield started
    for run in started:
        run.close()


@pytest.fixture
def local(tmp_path: Path, runs: list[LocalRun]) -> Any:
    """Start a local run with these arguments."""

    def start(*arguments: str, **streams: int) -> LocalRun:
        folder = tmp_path / f"run-{len(runs)}"
        folder.mkdir()
        runs.append(LocalRun(folder, *arguments, **streams))
        return runs[-1]

    return start


def manifest(path: Path, **sections: Any) -> str:
    document = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    document["spec"].update(sections)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


def request(method: str, url: str) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def kafka_cli(*arguments: str) -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("kafka-cli")), *arguments]
    answer: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return answer


def test_texts_become_embeddings_through_a_broker_in_memory(local: Any, tmp_path: Path) -> None:
    texts = [
        "Sort the list in ascending order.",
        "",
        "Parse a date from a string.",
        "Ein Satz mit Umlauten: Größe, Übung, Äpfel.",
        "   ",
        "日本語の文章です。",
        "🙂 emoji",
        "word " * 20_000,
    ]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    written = tmp_path / "new" / "folder" / "vectors.jsonl"
    run = local(
        *(str(QUICKSTART), "--input", str(tmp_path / "texts.txt"), "--output", str(written)),
        *("--query", "how do I order the elements of a list?"),
    )
    assert run.wait() == 0, run.errors
    records = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    assert all(record.keys() == FIELDS and len(record["embedding"]) == 384 for record in records)
    assert {record["id"]: record["original_text"] for record in records} == {
        f"line-{number}": text for number, text in enumerate(texts, 1) if text.strip()
    }
    assert "in memory" in run.errors
    assert "the manifest's kafka.kafka.svc:9092 is not contacted" in run.errors
    assert re.search(r"^In +7 \(2 blank lines left out\)$", run.output, re.MULTILINE)
    assert re.search(r"^Out +7$", run.output, re.MULTILINE)
    assert re.search(r"^Model +sentence-transformers/all-MiniLM-L6-v2, 384 dimensions", run.output, re.MULTILINE)
    assert re.search(r"^Weights +\S+, /\S+$", run.output, re.MULTILINE)
    assert re.search(r"how do I order the elements of a list\?\n +\S+ +line-1: Sort the list", run.output)


@pytest.mark.parametrize(
    ("encoding", "kind"), [("Base64", str), ("Binary", list)], ids=["a string of Base64", "bytes, shown as numbers"]
)
def test_each_encoding_gives_the_same_report_and_a_file_of_json(
    local: Any, tmp_path: Path, encoding: str, kind: type
) -> None:
    texts = ["Sort the list in ascending order.", "日本語の文章です。", "Parse a date from a string."]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    path = manifest(tmp_path / "pipeline.yaml", output={"topic": "vectors", "encoding": encoding})
    written = tmp_path / "vectors.jsonl"
    run = local(
        *(path, "--input", str(tmp_path / "texts.txt"), "--output", str(written)),
        *("--query", "how do I order the elements of a list?"),
    )
    assert run.wait() == 0, run.errors
    records = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    assert all(record.keys() == FIELDS and record["embedding_dimension"] == 384 for record in records)
    assert {record["id"]: record["original_text"] for record in records} == {
        f"line-{number}": text for number, text in enumerate(texts, 1)
    }
    assert {type(record["embedding"]) for record in records} == {kind}
    assert [sum(number * number for number in vector(record)) for record in records] == [pytest.approx(1)] * 3
    assert re.search(r"^Out +4$", run.output, re.MULTILINE)
    assert re.search(r"how do I order the elements of a list\?\n +\S+ +line-1: Sort the list", run.output)


def test_the_quickstart_embeds_docstrings_and_finds_what_an_engineer_would(local: Any, tmp_path: Path) -> None:
    written = tmp_path / "vectors.jsonl"
    run = local(str(QUICKSTART), "--limit", "300", "--output", str(written))
    assert run.wait() == 0, run.errors
    # Three questions are asked of the docstrings.
    assert re.search(r"^In +303$", run.output, re.MULTILINE)
    assert re.search(r"^Out +303$", run.output, re.MULTILINE)
    assert len(written.read_text(encoding="utf-8").splitlines()) == 300
    nearest = re.search(r"^  how do I sort a list by a key\n +\S+ +(\S+):", run.output, re.MULTILINE)
    assert nearest
    assert nearest[1] in {"list.sort", "sorted"}


def test_a_manifest_for_gpus_runs_on_a_machine_without_one_and_says_so(
    local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine with a GPU hides it here.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = manifest(tmp_path / "gpu.yaml", model={"device": "CUDA"}, worker={"gpu": {"count": 2}})
    run = local(path, "--limit", "3")
    assert run.wait() == 0, run.errors
    assert "device: cpu, since this machine has no GPU for the manifest's CUDA\n" in run.errors
    assert re.search(r"^Model +.* on cpu", run.output, re.MULTILINE)


def test_a_slow_pipe_is_embedded_as_it_arrives(local: Any, tmp_path: Path) -> None:
    written = tmp_path / "vectors.jsonl"

    def ids() -> list[str]:
        # A line may be half written.
        *lines, _ = written.read_text(encoding="utf-8").split("\n") if written.exists() else [""]
        return sorted(json.loads(line)["id"] for line in lines)

    run = local(str(QUICKSTART), "--input", "-", "--output", str(written), stdin=subprocess.PIPE)
    pipe = run.process.stdin
    pipe.write(b"one\ntwo\nthr")
    pipe.flush()
    wait_until(lambda: ids() == ["line-1", "line-2"], SECONDS, "waiting for the first part")
    assert run.process.poll() is None
    pipe.write(b"ee\n")
    pipe.close()
    assert run.wait() == 0, run.errors
    texts = [json.loads(line)["original_text"] for line in written.read_text(encoding="utf-8").splitlines()]
    assert sorted(texts) == ["one", "three", "two"]
    assert re.search(r"^In +3$", run.output, re.MULTILINE)


def test_a_full_disk_is_named_and_a_reader_that_left_is_no_trouble(local: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = local(str(QUICKSTART), "--limit", "3", "--output", "/dev/full", stdout=writing)
    os.close(writing)
    assert run.wait() == 1
    assert run.errors.endswith("error: --output /dev/full: No space left on device\n")


def test_bad_records_are_counted_by_reason_and_serving_goes_on_until_interrupted(local: Any, tmp_path: Path) -> None:
    lines = [
        b'{"id": "good", "text": "one"}',
        b'{"text": "no id", "extra": [1]}',
        b"not json",
        b'{"id": "cut", "text": "tw',
        b"[1, 2]",
        b'{"id": "no text"}',
        b'{"id": "latin", "text": "caf\xe9"}',
    ]
    (tmp_path / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    run = local(str(QUICKSTART), "--input", str(tmp_path / "records.jsonl"), "--serve", "--port", str(port))
    servers = run.wait_for(r"Serving at http://localhost:\d+, with the broker at (\S+), until Ctrl-C")[1]
    assert re.search(r"^In +7$", run.output, re.MULTILINE)
    assert re.search(r"^Out +2$", run.output, re.MULTILINE)
    reasons = re.search(r"^Dead +5 \((.*)\)$", run.output, re.MULTILINE)
    assert reasons
    assert set(reasons[1].split(", ")) == {"InvalidJson 2", "NotAnObject 1", "TextMissing 1", "InvalidUtf8 1"}

    assert request("GET", f"{url}/health")["status"] == "healthy"
    # The commands that it prints do what they say.
    write, read = (shlex.split(line) for line in run.output.splitlines() if line.startswith("  kafka-cli"))
    assert servers in write
    assert kafka_cli(*write[1:])["topic"] == "text-messages"
    wait_until(lambda: request("GET", f"{url}/stats")["embeddings_generated"] == 3, 60, "waiting for the text")
    assert kafka_cli(*read[1:], "--max-messages", "1").keys() == FIELDS
    assert request("POST", f"{url}/stop")["status"] == "stopped"

    run.interrupt()
    assert run.wait() == 130


def test_an_interrupted_run_drains_its_worker_and_reports_what_was_done(local: Any, tmp_path: Path) -> None:
    written = tmp_path / "vectors.jsonl"
    run = local(str(QUICKSTART), "--limit", "1500", "--output", str(written))
    run.wait_for(r"\d+ of 1,503 answered, ")
    run.interrupt()
    assert run.wait() == 130
    fed, embedded = (int(number.replace(",", "")) for number in re.findall(r"^(?:In|Out) +(\S+)$", run.output, re.M))
    assert 0 < embedded < fed <= 1_503
    # The three queries are embedded and not written.
    assert embedded - 3 <= len(written.read_text(encoding="utf-8").splitlines()) <= embedded
    assert run.errors.endswith("interrupted\n")


def test_a_run_that_is_terminated_before_it_feeds_ends_cleanly_too(local: Any) -> None:
    run = local(str(QUICKSTART))
    run.wait_for("worker: loading the model")
    run.interrupt(signal.SIGTERM)
    assert run.wait() == 130
    assert run.errors.endswith("interrupted before the first text was fed\n")
    assert run.output == ""


def test_a_worker_whose_run_was_killed_ends_by_itself(local: Any) -> None:
    run = local(str(QUICKSTART))
    run.wait_for("worker: loading the model")
    assert len(run.workers()) == 1
    run.process.kill()
    run.process.wait(SECONDS)
    wait_until(lambda: not run.workers(), SECONDS, "waiting for the worker to end")


def test_a_worker_that_dies_ends_the_run_with_a_report_and_an_error(local: Any) -> None:
    run = local(str(QUICKSTART), "--limit", "1500")
    run.wait_for("answered, ")
    (worker,) = run.workers()
    os.kill(worker, signal.SIGKILL)
    assert run.wait() == 1
    assert re.search(r"^In +\d+$", run.output, re.MULTILINE)
    assert "error: the worker ended with exit code -9; its last lines:\n" in run.errors


def test_a_model_that_does_not_exist_is_one_line_and_exit_code_1(local: Any, tmp_path: Path) -> None:
    run = local(manifest(tmp_path / "pipeline.yaml", model={"name": "/no/such/model"}))
    assert run.wait() == 1
    error = run.errors.splitlines()[-1]
    assert error.startswith("error: the worker ended: ModelNotFound: model.name: '/no/such/model'")
    assert run.output == ""


def test_a_broker_that_cannot_be_reached_is_named_and_nothing_stands_in_for_it(local: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        servers = f"127.0.0.1:{free.getsockname()[1]}"
    run = local(str(QUICKSTART), "--bootstrap-servers", servers)
    assert run.wait() == 1
    assert run.errors.splitlines()[-1].startswith(f"error: no Kafka broker can be reached at {servers} (")
    assert "in memory" not in run.errors.splitlines()[-2]


def largest_message(admin: AdminClient, topic: str) -> int:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    return int(admin.describe_configs([resource])[resource].result()["max.message.bytes"].value)


def test_a_real_broker_keeps_its_topics_and_gets_those_that_it_lacks(
    local: Any, tmp_path: Path, kafka: KafkaBroker, unique: str
) -> None:
    servers = kafka.bootstrap_servers
    texts, vectors, dead = f"{unique}-in", f"{unique}-out", f"{unique}-out-deadletter"
    create_topics(servers, [texts], partitions=3, config={"max.message.bytes": "2000000"})
    # Somebody else's record, which is embedded and not counted.
    producer = Producer({"bootstrap.servers": servers})
    producer.produce(texts, value=b'{"text": "was there before"}')
    assert producer.flush(30) == 0
    path = manifest(tmp_path / "pipeline.yaml", input={"topic": texts}, output={"topic": vectors})
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")

    run = local(path, "--input", str(tmp_path / "texts.txt"), "--bootstrap-servers", servers)

    assert run.wait() == 0, run.errors
    assert f"topics: made {vectors}, {dead}" in run.errors
    assert re.search(rf"^Broker +{servers}, in place of the manifest's", run.output, re.MULTILINE)
    assert re.search(r"^In +3$", run.output, re.MULTILINE)
    assert re.search(r"^Out +3$", run.output, re.MULTILINE)
    admin = AdminClient({"bootstrap.servers": servers})
    assert len(admin.list_topics(texts, timeout=30).topics[texts].partitions) == 3
    assert largest_message(admin, dead) == 2_000_000 + 65_536
