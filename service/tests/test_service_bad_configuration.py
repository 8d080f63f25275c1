"""A configuration that can't be used: one line for each mistake, a non-zero exit, and nothing started."""

import subprocess
import sys
from pathlib import Path

import pytest

from kafka_certificates import Certificates


def run(config: Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedding_service", "run", "--config", str(config)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "--config: '{file}': No such file or directory; expected a readable YAML file", id="a missing file"),
        pytest.param("kafka: [", "{file}: not valid YAML: ", id="invalid YAML"),
        pytest.param("kafka: {servers: a:1}", "{file}: kafka.servers: unknown key; expected one of bootstrap_servers, ", id="an unknown key"),
        pytest.param("http: {port: many}", "{file}: http.port: 'many': expected a whole number", id="a wrong type"),
        pytest.param("logging: {file: /nonexistent/dir/service.log}", "{file}: logging.file: '/nonexistent/dir/service.log': No such file or directory; expected a file that can be written", id="a log file that can't be written"),
        pytest.param("kafka: {tls: true, tls_ca_file: /nonexistent/ca.pem}", "{file}: kafka.tls_ca_file: '/nonexistent/ca.pem': No such file or directory; expected a readable file in PEM", id="a CA that isn't there"),
        pytest.param("kafka: {tls: true, tls_ca_file: /etc}", "{file}: kafka.tls_ca_file: '/etc': Is a directory; expected a readable file in PEM", id="a CA that is a directory"),
        pytest.param("kafka: {tls: true, tls_ca_file: /etc/passwd}", "{file}: kafka.tls_ca_file: '/etc/passwd': the given CA can't be read; expected certificates in PEM", id="a CA that isn't one"),
        pytest.param(b"\xff\xfe", "--config: '{file}': ", id="a file that is not text"),
    ],
)  # fmt: skip
def test_gives_one_line_and_exit_code_2(tmp_path: Path, content: str | bytes | None, says: str) -> None:
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run(config)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("ConfigurationInvalid: " + says.format(file=config))


def test_two_mistakes_give_two_lines(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("http: {port: many}\nmodel: {device: gpu}", encoding="utf-8")
    assert [line.split(": ")[2] for line in run(config).stderr.splitlines()] == ["model.device", "http.port"]


def test_a_configuration_error_reaches_the_termination_log(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    command = [sys.executable, "-m", "embedding_service", "run", "--config", str(tmp_path / "no.yaml")]
    subprocess.run([*command, "--termination-log", str(log)], capture_output=True, timeout=60, check=False)
    assert log.read_text(encoding="utf-8").startswith("ConfigurationInvalid: --config: ")


def test_a_key_of_another_certificate_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    made = Certificates(["localhost"])
    files = {"one.crt": made.client("one").certificate_pem, "other.key": made.client("other").key_pem}
    for name, pem in files.items():
        (tmp_path / name).write_text(pem, encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(f"kafka: {{tls: true, tls_certificate_file: {tmp_path}/one.crt}}", encoding="utf-8")
    variable, key_file = "EMBEDDING_KAFKA__TLS_KEY_FILE", f"{tmp_path}/other.key"
    result = run(config, {variable: key_file})
    assert result.returncode == 2
    assert (
        result.stderr
        == f"ConfigurationInvalid: {variable}: '{key_file}': the client's key isn't that of its certificate\n"
    )
