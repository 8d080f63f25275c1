"""The command line, as far as it goes without a worker."""

import io
import re
import socket
from pathlib import Path

import pytest

from embedding_operator.main import main

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "examples" / "quickstart.yaml")
RULES = "not checked here: the 6 CEL rules of the resource, which the API server applies\n"
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


def test_docs_name_each_option_of_a_local_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("local", "--help") == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    documented = (ROOT / "docs" / "local-mode.md").read_text(encoding="utf-8")
    assert {option for option in options if f"`{option}" not in documented} == set()
