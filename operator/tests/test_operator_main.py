"""The command line, as far as it goes without a worker."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from embedding_operator import crd
from embedding_operator.local.errors import LocalError
from embedding_operator.main import main

ROOT = Path(__file__).parents[2]
OPERATOR = str(Path(sys.executable).with_name("embedding-operator"))
QUICKSTART = str(ROOT / "examples" / "quickstart.yaml")
RULES = f"not checked here: the {len(crd.cel_rules())} CEL rules of the resource, which the API server applies\n"
GPU = (ROOT / "examples" / "quickstart.yaml").read_text(encoding="utf-8") + "  model:\n    device: gpu\n"


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_valid_manifest_is_named_and_so_is_what_was_not_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("validate", QUICKSTART) == 0
    output = capsys.readouterr()
    assert output.out == f"{QUICKSTART}: EmbeddingPipeline default/quickstart: valid against the schema\n{RULES}"
    assert output.err == ""


def test_faults_go_to_standard_error_with_the_file_in_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.yaml"
    path.write_text(GPU, encoding="utf-8")
    assert exit_code("validate", QUICKSTART, str(path)) == 1
    output = capsys.readouterr()
    assert output.err == f'{path}: spec.model.device: "gpu" is not one of Auto, CPU, CUDA\n'
    assert "default/quickstart: valid" in output.out


def test_each_document_of_a_file_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "several.yaml"
    path.write_text(f"{Path(QUICKSTART).read_text(encoding='utf-8')}---\n{GPU}", encoding="utf-8")
    assert exit_code("validate", str(path)) == 1
    output = capsys.readouterr()
    assert output.out.startswith(f"{path}: EmbeddingPipeline default/quickstart: valid")
    assert output.err.startswith(f"{path}: spec.model.device")


def test_a_manifest_can_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(GPU))
    assert exit_code("validate", "-") == 1
    assert capsys.readouterr().err.startswith("-: spec.model.device")


def test_an_interrupt_while_the_manifest_is_read_ends_without_a_traceback() -> None:
    # Where the tests run in the background, they and their children ignore the signal.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from embedding_operator.main import main; main()"
    command = [sys.executable, "-c", program, "local", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        # More than a pipe holds: once it is written, the manifest is being read.
        process.stdin.write(b"#" * 1_000_000)
        process.send_signal(signal.SIGINT)
        # Python heeds a signal that comes just before a read only once that read is over.
        process.stdin.close()
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def validate_into(stdout: int) -> "subprocess.CompletedProcess[bytes]":
    # Buffered, as it is for most people: Python then writes what is left once more as it ends.
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    command = [OPERATOR, "validate", QUICKSTART]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, timeout=60)


def test_a_reader_that_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = validate_into(writing)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_standard_output_that_is_full_is_an_error() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = validate_into(full.fileno())
    assert (ended.returncode, ended.stderr) == (1, b"error: standard output: No space left on device\n")


def test_a_file_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.yaml"
    assert exit_code("validate", str(path)) == 1
    assert capsys.readouterr().err == f"{path}: No such file or directory; expected a manifest in YAML\n"


def test_a_file_that_is_no_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe")
    assert exit_code("validate", str(path)) == 1
    assert capsys.readouterr().err == f"{path}: not UTF-8; expected a manifest in YAML\n"


def test_a_local_run_refuses_what_validate_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.yaml"
    path.write_text(GPU, encoding="utf-8")
    assert exit_code("local", str(path)) == 1
    assert capsys.readouterr().err == f'{path}: spec.model.device: "gpu" is not one of Auto, CPU, CUDA\n'


def test_a_local_run_takes_one_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.yaml"
    one = Path(QUICKSTART).read_text(encoding="utf-8")
    path.write_text(f"{one}---\n{one}", encoding="utf-8")
    assert exit_code("local", str(path)) == 1
    assert capsys.readouterr().err == f"{path}: 2 documents; a local run takes one\n"


def test_a_local_run_keeps_the_rule_that_topics_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "same.yaml"
    path.write_text(Path(QUICKSTART).read_text(encoding="utf-8").replace("topic: embeddings", "topic: text-messages"))
    assert exit_code("local", str(path)) == 1
    assert capsys.readouterr().err == (
        f"{RULES}error: output_topic: 'text-messages': expected a topic other than input_topic\n"
    )


def test_an_input_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none"
    assert exit_code("local", QUICKSTART, "--input", str(missing)) == 1
    assert capsys.readouterr().err.endswith(f"error: --input {missing}: No such file or directory\n")


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("local", QUICKSTART, "--output", str(tmp_path)) == 1
    assert capsys.readouterr().err.endswith(f"error: --output {tmp_path}: Is a directory\n")


USAGE = {
    "no command": ([], "COMMAND"),
    "no file": (["validate"], "FILE"),
    "an address without a port": (["local", "f", "--bootstrap-servers", "kafka"], "'kafka': expected HOST:PORT"),
    "a negative limit": (["local", "f", "--limit", "-1"], "--limit"),
    "a limit that is no number": (["local", "f", "--limit", "many"], "'many': expected a whole number, 0 or more"),
    "a port that can't be": (["local", "f", "--port", "70000"], "'70000': expected a port, 1 to 65535"),
    "manifest and texts both from standard input": (["local", "-", "--input", "-"], "can't both come from standard"),
}


@pytest.mark.parametrize(("arguments", "message"), USAGE.values(), ids=USAGE.keys())
def test_wrong_usage_is(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert exit_code("local", QUICKSTART, "--serve", "--port", str(port)) == 1
    assert capsys.readouterr().err.endswith(
        f"error: port {port} can't be used (Address already in use); stop what listens there, or name another with "
        "--port\n"
    )


PORTS = {
    "5000 where it serves": (["--serve"], "5000"),
    "the one asked for where it serves": (["--serve", "--port", "5001"], "5001"),
    "the one asked for": (["--port", "5002"], "5002"),
    "a free one otherwise": ([], "40000"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "port"), PORTS.values(), ids=PORTS.keys())
def test_the_port_that_the_worker_is_given_is(arguments: list[str], port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    def running(_config: str, environment: dict[str, str], *_: object, **__: object) -> None:
        given.update(environment)
        raise LocalError("that is all this test wants to know")

    monkeypatch.setattr("embedding_operator.local.run.running", running)
    # Whatever listens on this machine.
    monkeypatch.setattr("embedding_operator.local.run.require_free", lambda _: None)
    monkeypatch.setattr("embedding_operator.local.run.free_port", lambda: 40000)
    assert exit_code("local", QUICKSTART, "--limit", "0", *arguments) == 1
    assert given["EMBEDDING_HTTP__PORT"] == port
    assert given["EMBEDDING_HTTP__HOST"] == "127.0.0.1"


def test_docs_name_each_option_of_a_local_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("local", "--help") == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    documented = (ROOT / "docs" / "local-mode.md").read_text(encoding="utf-8")
    assert {option for option in options if f"`{option}" not in documented} == set()


def test_docs_show_what_validate_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(GPU, encoding="utf-8")
    assert exit_code("validate", str(path)) == 1
    output = capsys.readouterr()
    documented = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert all(
        f"    {line}\n" in documented for line in [output.err.strip().replace(str(path), path.name), output.out.strip()]
    )


def test_a_quantity_that_is_a_whole_number_with_a_point_is_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        Path(QUICKSTART).read_text(encoding="utf-8") + "  worker:\n    resources:\n      requests: {cpu: 1.0}\n"
    )
    assert exit_code("validate", str(path)) == 0
    assert "quickstart: valid against the schema" in capsys.readouterr().out
