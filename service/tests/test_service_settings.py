"""config.yaml and environment to settings, and the line that says what is wrong."""

import re
from pathlib import Path

import pytest

from embedding_service.contract.problems import SettingsError
from embedding_service.contract.settings import (
    FROM_ENVIRONMENT,
    SECRET_KEYS,
    HttpSettings,
    KafkaSettings,
    Settings,
    parse_settings,
)

ORIGINAL_CONFIG = re.search(
    r"```yaml\n(# Kafka Configuration.*?)```",
    (Path(__file__).parent / "original_service.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


def test_the_originals_config_yaml_is_valid_as_it_stands() -> None:
    assert ORIGINAL_CONFIG is not None
    settings = parse_settings(ORIGINAL_CONFIG[1], {})
    assert settings.kafka.bootstrap_servers == ("localhost:9092",)
    assert (settings.kafka.input_topic, settings.kafka.output_topic) == ("text-messages", "embeddings")
    assert settings.kafka.consumer_group == "embedding-service"
    assert (settings.model.name, settings.model.max_length, settings.model.device) == (
        "sentence-transformers/all-MiniLM-L6-v2",
        512,
        "cpu",
    )
    assert (settings.http.host, settings.http.port, settings.http.debug) == ("0.0.0.0", 5000, False)
    assert settings.http.control == "open"


def test_the_repositorys_config_yaml_says_what_the_original_says() -> None:
    assert ORIGINAL_CONFIG is not None
    ours = (Path(__file__).parents[2] / "config.yaml").read_text(encoding="utf-8")
    assert parse_settings(ours, {}) == parse_settings(ORIGINAL_CONFIG[1], {})


def test_an_empty_file_and_empty_sections_mean_the_defaults() -> None:
    assert parse_settings("", {}) == parse_settings("kafka:\nmodel:\n", {}) == Settings()


def test_the_environment_wins_over_the_file() -> None:
    environ = {"EMBEDDING_KAFKA__BOOTSTRAP_SERVERS": "a:1,b:2", "EMBEDDING_HTTP__PORT": "6000", "PATH": "/bin"}
    settings = parse_settings("kafka: {bootstrap_servers: c:3}\nflask: {port: 5000}", environ)
    assert settings.kafka.bootstrap_servers == ("a:1", "b:2")
    assert settings.http.port == 6000


def test_variables_of_kubernetes_service_links_are_not_settings() -> None:
    environ = {"EMBEDDING_KAFKA_SERVICE_HOST": "10.0.0.1", "EMBEDDING_KAFKA_PORT": "tcp://10.0.0.1:9092"}
    assert parse_settings("", environ) == Settings()


def test_what_is_written_as_yaml_reads_back_equal() -> None:
    settings = parse_settings(
        "kafka: {bootstrap_servers: [a:1, '[::1]:2'], start_from: latest}\nhttp: {control: off}\nmodel: {prompt: 'é: '}",
        {},
    )
    assert parse_settings(settings.to_yaml(), {}) == settings


SECRETS = {
    "EMBEDDING_HTTP__TOKEN": "s3cret",
    "EMBEDDING_KAFKA__SASL_USERNAME": "s3cret",
    "EMBEDDING_KAFKA__SASL_PASSWORD": "s3cret",
}


def test_a_secret_is_neither_shown_nor_written() -> None:
    settings = parse_settings("kafka: {sasl_mechanism: scram-sha-512}", SECRETS)
    assert settings.http.control == "token"
    assert "s3cret" not in settings.to_yaml() + str(settings.redacted()) + repr(settings)
    assert settings.redacted()["http"]["token"] == "**********"
    assert settings.redacted()["kafka"]["sasl_password"] == "**********"


@pytest.mark.parametrize("key", sorted(SECRET_KEYS))
def test_a_secret_is_not_repeated_in_an_error(key: str) -> None:
    section, name = key.split(".")
    with pytest.raises(SettingsError) as raised:
        parse_settings(f"{section}: {{{name}: [s3cret]}}", {})
    assert "s3cret" not in str(raised.value)


def test_what_a_builder_writes_without_secrets_is_whole_with_those_of_the_environment() -> None:
    built = Settings(
        kafka=KafkaSettings(sasl_mechanism="PLAIN", sasl_username=FROM_ENVIRONMENT, sasl_password=FROM_ENVIRONMENT),
        http=HttpSettings(control="token", token=FROM_ENVIRONMENT),
    )
    read = parse_settings(built.to_yaml(), SECRETS)
    assert read.http.control == "token"
    assert read.kafka.sasl_mechanism == "PLAIN"
    with pytest.raises(SettingsError):
        parse_settings(built.to_yaml(), {})


@pytest.mark.parametrize(
    ("text", "environ", "line"),
    [
        pytest.param("kafka: [", {}, r"c\.yaml: not valid YAML: .+", id="invalid YAML"),
        pytest.param("- a", {}, r"c\.yaml: list: expected a mapping of sections \(kafka, .+\)", id="not a mapping"),
        pytest.param("modle: {}", {}, r"c\.yaml: modle: unknown key; expected one of kafka, .+", id="an unknown section"),
        pytest.param("kafka: {topic: a}", {}, r"c\.yaml: kafka\.topic: unknown key; expected one of .*input_topic.*", id="an unknown key"),
        pytest.param("kafka: 5", {}, r"c\.yaml: kafka: 5: expected a mapping", id="a section that is a number"),
        pytest.param("flask: {port: abc}", {}, r"c\.yaml: flask\.port: 'abc': expected a whole number", id="a port that is a word, under the original service's name"),
        pytest.param("http: {port: 70000}", {}, r"c\.yaml: http\.port: 70000: expected less than or equal to 65535", id="a port out of range"),
        pytest.param("http: {}\nflask: {}", {}, r"c\.yaml: flask: is the old name of http, .+", id="both names of http"),
        pytest.param("kafka: {bootstrap_servers: localhost}", {}, r"c\.yaml: kafka\.bootstrap_servers: 'localhost': expected host:port, .+", id="a broker without port"),
        pytest.param("kafka: {output_topic: text-messages}", {}, r"c\.yaml: kafka\.output_topic: 'text-messages': expected a topic other than input_topic", id="one topic for input and output"),
        pytest.param("kafka: {dead_letter_topic: embeddings}", {}, r"c\.yaml: kafka\.dead_letter_topic: 'embeddings': expected a topic other than .+", id="one topic for output and dead letters"),
        pytest.param("kafka: {input_topic: 'a b'}", {}, r"c\.yaml: kafka\.input_topic: 'a b': expected a topic name: .+", id="a topic name with a space"),
        pytest.param("model: {device: gpu}", {}, r"c\.yaml: model\.device: 'gpu': expected one of auto, cpu, cuda", id="a device that there isn't"),
        pytest.param("model: {max_length: 0}", {}, r"c\.yaml: model\.max_length: 0: expected greater than or equal to 1", id="a length of zero"),
        pytest.param("model: {name: ''}", {}, r"c\.yaml: model\.name: '': expected a string that isn't empty", id="an empty model name"),
        pytest.param("model: {normalize: maybe}", {}, r"c\.yaml: model\.normalize: 'maybe': expected true or false", id="a word for a boolean"),
        pytest.param("output: {encoding: Base64}", {}, r"c\.yaml: output\.encoding: 'Base64': expected one of json, base64, binary", id="an encoding that there isn't"),
        pytest.param("logging: {level: LOUD}", {}, r"c\.yaml: logging\.level: 'LOUD': expected one of DEBUG, INFO, .+", id="a level that there isn't"),
        pytest.param("http: {control: token}", {}, r"c\.yaml: http\.control: 'token': expected open or off, or http\.token .+", id="token control without a token"),
        pytest.param("", {"EMBEDDING_HTTP__TOKEN": ""}, r"EMBEDDING_HTTP__TOKEN: \*+: expected .+", id="an empty token is no token"),
        pytest.param("engine: {window_seconds: 600}", {}, r"c\.yaml: engine\.window_seconds: 600: expected less than or equal to 60", id="a window longer than a rebalance may take"),
        pytest.param("", {"EMBEDDING_HTTP__PORT": "x"}, r"EMBEDDING_HTTP__PORT: 'x': expected a whole number", id="a wrong variable is named itself"),
        pytest.param("kafka: {tls_ca_file: /ca.pem}", {}, r"c\.yaml: kafka\.tls_ca_file: '/ca\.pem': expected kafka\.tls: true with it", id="a CA without TLS"),
        pytest.param("kafka: {tls: true, tls_certificate_file: /c.pem}", {}, r"c\.yaml: kafka\.tls_certificate_file: '/c\.pem': expected kafka\.tls_key_file set too", id="a certificate without its key"),
        pytest.param("kafka: {tls: true, tls_key_file: /k.pem}", {}, r"c\.yaml: kafka\.tls_key_file: '/k\.pem': expected kafka\.tls_certificate_file set too", id="a key without its certificate"),
        pytest.param("kafka: {sasl_mechanism: GSSAPI}", {}, r"c\.yaml: kafka\.sasl_mechanism: 'GSSAPI': expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", id="a mechanism that isn't offered"),
        pytest.param("kafka: {sasl_mechanism: PLAIN}", {}, r"c\.yaml: kafka\.sasl_mechanism: 'PLAIN': expected kafka\.sasl_username set too \(EMBEDDING_KAFKA__SASL_USERNAME\)", id="a mechanism without a user"),
        pytest.param("kafka: {sasl_mechanism: PLAIN}", {"EMBEDDING_KAFKA__SASL_USERNAME": "u"}, r"c\.yaml: kafka\.sasl_mechanism: 'PLAIN': expected kafka\.sasl_password set too \(EMBEDDING_KAFKA__SASL_PASSWORD\)", id="a user without a password"),
        pytest.param("", {"EMBEDDING_KAFKA__SASL_PASSWORD": "p"}, r"c\.yaml: kafka\.sasl_mechanism: None: expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, .+", id="a password without a mechanism"),
        pytest.param("", {"EMBEDDING_KAFKA__SASL_PASSWORD": "p\n"}, r"EMBEDDING_KAFKA__SASL_PASSWORD: \*+: expected no line break at its end .+", id="a secret with the line break of echo"),
        pytest.param("model: {on_overflow: cut}", {}, r"c\.yaml: model\.on_overflow: 'cut': expected one of truncate, reject", id="a treatment of long texts that there isn't"),
        pytest.param("model: {change_policy: mixed}", {}, r"c\.yaml: model\.change_policy: 'mixed': expected one of require_new_output_topic, allow_mixed", id="a change policy that there isn't"),
        pytest.param("", {"EMBEDDING_KAFKA__TOPIC": "x"}, r"EMBEDDING_KAFKA__TOPIC: unknown key; expected one of .+", id="an unknown variable"),
    ],
)  # fmt: skip
def test_a_mistake_gives_one_line_with_file_key_value_and_what_was_expected(
    text: str, environ: dict[str, str], line: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_settings(text, environ, "c.yaml")
    assert len(raised.value.problems) == 1
    assert re.fullmatch(line, raised.value.problems[0]), raised.value.problems[0]


def test_every_mistake_gets_its_line() -> None:
    with pytest.raises(SettingsError) as raised:
        parse_settings("http: {port: x}\nmodel: {device: gpu}\nkafka: {output_topic: '?'}", {})
    assert len(raised.value.problems) == 3
