"""The project's images are what the Dockerfile's users are promised, and compose.yaml fits them."""

import json
import re
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

import embedding_service
from embedding_service.contract.settings import parse_settings
from image_fixtures import LABELS, REVISION, SOURCE, WORKER
from kafka_broker import KafkaBroker
from kafka_helpers import Record, create_topics, produce, read_all
from kafka_listeners import PLAIN_HOST
from kafka_source import kafka_version
from testcluster import buildah, choice
from testcluster.cluster import Cluster
from testcluster.commands import run
from testcluster.errors import CommandFailed
from testcluster.images import REPOSITORY, BuiltImage, build_image
from waiting import wait_until

USER = 65532
COMMANDS = {"operator": "embedding-operator", "worker": "embedding-service"}
MODULES = {"operator": "embedding_operator.main", "worker": "embedding_service.main"}
# Of the unpacked layers, Python included.
OPERATOR_LIMIT_MB = 450
CONTEXT = (
    *("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "config.yaml", "crds"),
    *("operator/embedding_operator", "service/embedding_service"),
    *(path.name for path in REPOSITORY.glob("requirements-*.txt")),
)


@pytest.fixture(params=COMMANDS)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(target: str, request: pytest.FixtureRequest) -> BuiltImage:
    built = request.getfixturevalue(f"{target}_image")
    assert isinstance(built, BuiltImage)
    return built


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Make a copy of what the images are made of, to change something in it."""
    for name in CONTEXT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        source = REPOSITORY / name
        ignored = shutil.ignore_patterns("__pycache__")
        (
            shutil.copytree(source, tmp_path / name, ignore=ignored)
            if source.is_dir()
            else shutil.copy2(source, tmp_path / name)
        )
    return tmp_path


@pytest.fixture
def pod(cluster: Cluster, namespace: str) -> Callable[..., str]:
    """Give a function that runs a container to its end under ``restricted``, and returns what it wrote."""
    cluster.kubectl("-n", namespace, "create", "configmap", "nothing", "--from-literal=file=")
    return partial(run_pod, cluster, namespace)


def run_pod(cluster: Cluster, namespace: str, image: BuiltImage, **container: object) -> str:
    document = pod_of(cluster.load_image(image.reference), **container)
    kubectl = partial(cluster.kubectl, "-n", namespace)
    kubectl("apply", "-f", "-", input=json.dumps(document))
    phase = wait_until(lambda: ended(kubectl("get", "pod", "images", "-o", "json").stdout), 120, "the pod doesn't end")
    logs = kubectl("logs", "images").stdout
    kubectl("delete", "pod", "images")
    assert phase == "Succeeded", logs
    return logs


def ended(pod: str) -> str | None:
    phase = str(json.loads(pod)["status"].get("phase"))
    return phase if phase in ("Succeeded", "Failed") else None


def pod_of(image: str, **container: object) -> dict[str, Any]:
    """A pod with a root that can't be written, and with no shell that can be started."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    shells = [
        {"name": "nothing", "mountPath": f"/usr/bin/{shell}", "subPath": "file", "readOnly": True}
        for shell in ("dash", "bash")
    ]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "models", "mountPath": "/var/cache/embedding-service"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "images"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "c",
                    "image": image,
                    "securityContext": security,
                    "volumeMounts": [*shells, *mounts],
                    **container,
                }
            ],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "models", "emptyDir": {}},
                {"name": "nothing", "configMap": {"name": "nothing"}},
            ],
        },
    }


def configuration(image: BuiltImage) -> dict[str, Any]:
    """An image's configuration, as the builder has it."""
    engine = choice.engine()
    if engine is None:
        return dict(json.loads(buildah.layers(image.reference)[0])["config"])
    return dict(json.loads(run(engine, "image", "inspect", image.reference).stdout)[0]["Config"])


def layers(image: BuiltImage) -> list[str]:
    """The digests of an image's layers, the lowest first."""
    engine = choice.engine()
    if engine is None:
        return list(json.loads(buildah.layers(image.reference)[0])["rootfs"]["diff_ids"])
    return list(json.loads(run(engine, "image", "inspect", image.reference).stdout)[0]["RootFS"]["Layers"])


@pytest.mark.slow
def test_an_image_has_a_fixed_user_a_stop_signal_a_health_check_and_labels(target: str, image: BuiltImage) -> None:
    config = configuration(image)
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == [COMMANDS[target]]
    # CMD, not CMD-SHELL: it needs no shell.
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    labels = {key.removeprefix("org.opencontainers.image."): text for key, text in config["Labels"].items()}
    assert labels["title"] == f"embedding-{target}"
    assert labels["description"]
    assert labels["licenses"] == "Apache-2.0"
    assert (labels["version"], labels["revision"], labels["source"]) == (
        embedding_service.__version__,
        REVISION,
        SOURCE,
    )


@pytest.mark.slow
def test_no_image_decides_whether_the_hub_is_asked(image: BuiltImage) -> None:
    assert not [line for line in configuration(image)["Env"] if "OFFLINE" in line]


@pytest.mark.slow
def test_an_image_needs_no_shell_and_no_writable_root(target: str, image: BuiltImage, pod: Callable[..., str]) -> None:
    assert pod(image, args=["--help"]).startswith(f"usage: {COMMANDS[target]}")


@pytest.mark.slow
def test_an_image_has_a_name_for_its_user_and_bytecode_for_all_it_imports(
    target: str, image: BuiltImage, pod: Callable[..., str]
) -> None:
    # What Python compiles it can't keep: it would do so at each start.
    code = f"""
import getpass, importlib.machinery, os, pwd
compiled = []
compile = importlib.machinery.SourceFileLoader.source_to_code
def noticed(self, data, path, **more):
    compiled.append(path)
    return compile(self, data, path, **more)
importlib.machinery.SourceFileLoader.source_to_code = noticed
import {MODULES[target]}, http.client, urllib.request
try:
    os.execv("/bin/sh", ["sh"])
except OSError as error:
    shell = error.strerror
print(os.getuid(), pwd.getpwuid(os.getuid()).pw_name, shell, compiled)
"""
    assert pod(image, command=["python", "-c", code]).strip() == f"{USER} embedding Permission denied []"


@pytest.mark.slow
def test_the_operators_image_is_small_and_has_no_torch(operator_image: BuiltImage, pod: Callable[..., str]) -> None:
    code = "from importlib.metadata import distributions as d; print(sorted(i.name.lower() for i in d()))"
    installed = pod(operator_image, command=["python", "-c", code])
    assert "'kopf'" in installed
    assert not re.search(r"'(torch|transformers|sentence-transformers|nvidia-.*|pip|uv)'", installed)
    assert operator_image.size_bytes < OPERATOR_LIMIT_MB * 1e6


@pytest.mark.slow
def test_a_changed_line_of_code_changes_the_last_layer_of_an_image_and_no_other(
    target: str, image: BuiltImage, context: Path, announce: Callable[[str], None]
) -> None:
    with (context / "service/embedding_service/__init__.py").open("a") as module:
        module.write("# One more line.\n")
    arguments = LABELS | (WORKER if target == "worker" else {})
    changed = build_image(target, f"embedding-{target}:changed", arguments, context=context)
    announce(f"Image: {changed.reference}, a changed line of code: built in {changed.seconds:.0f} s")
    assert layers(changed)[:-1] == layers(image)[:-1]
    assert layers(changed)[-1] != layers(image)[-1]


@pytest.mark.slow
def test_torch_comes_from_the_index_that_is_given_and_cuda_is_then_left_out(
    tmp_path: Path, announce: Callable[[str], None]
) -> None:
    version = pins("requirements-torch.txt")["torch"]
    wheel = torch_wheel(tmp_path / "torch", f"{version}+cpu")
    with serving(tmp_path) as (url, requested):
        image = build_image("torch", "embedding-torch:cpu", {"TORCH_INDEX_URL": url})
    announce(f"Image: {image.reference}, {image.size_bytes / 1e6:,.0f} MB, without torch's own libraries")
    assert f"/torch/{wheel}" in requested
    assert image.size_bytes < OPERATOR_LIMIT_MB * 1e6


@pytest.mark.slow
@pytest.mark.usefixtures("worker_image")
def test_a_model_source_that_is_not_known_is_refused() -> None:
    with pytest.raises(CommandFailed, match="DEFAULT_MODEL: 'hub': expected download or package"):
        build_image("worker", "embedding-worker:wrong", LABELS | {"DEFAULT_MODEL": "hub"})


@pytest.mark.slow
def test_the_workers_image_embeds_with_no_more_than_the_address_of_kafka(
    cluster: Cluster, namespace: str, worker_image: BuiltImage, announce: Callable[[str], None]
) -> None:
    with KafkaBroker(host=cluster.host_address, announce=announce) as kafka:
        settings = parse_settings((REPOSITORY / "config.yaml").read_text(), {}).kafka
        servers = kafka.bootstrap_servers
        create_topics(servers, [settings.input_topic, settings.output_topic])
        produce(servers, [Record(settings.input_topic, value=json.dumps({"id": "1", "text": "hello"}).encode())])
        environment = {
            "EMBEDDING_KAFKA__BOOTSTRAP_SERVERS": kafka.address(PLAIN_HOST),
            # No hub is asked, so that this doesn't wait for an answer.
            "HF_HUB_OFFLINE": "1",
        }
        variables = [{"name": name, "value": value} for name, value in environment.items()]
        kubectl = partial(cluster.kubectl, "-n", namespace)
        kubectl("create", "configmap", "nothing", "--from-literal=file=")
        document = pod_of(cluster.load_image(worker_image.reference), env=variables)
        kubectl("apply", "-f", "-", input=json.dumps(document))
        outputs = wait_until(lambda: read_all(servers, settings.output_topic), 240, "no embedding")
        check = configuration(worker_image)["Healthcheck"]["Test"][1:]
        assert kubectl("exec", "images", "--", *check).stdout == ""
        kubectl("delete", "pod", "images")
    value = outputs[0].value()
    assert value is not None
    assert len(json.loads(value)["embedding"]) == 384


def test_the_images_have_the_versions_that_the_tests_have() -> None:
    tested = pins("requirements.txt")
    images = {name: pins(f"requirements-{name}.txt") for name in ("operator", "torch", "worker", "default-model")}
    for name, found in images.items():
        assert {package: tested.get(package) for package in found} == found, f"run `make requirements` ({name})"
    assert set(tested) == set().union(*images.values())
    assert not [name for name in images["operator"] if name == "torch" or name.startswith("nvidia")]


def test_compose_starts_the_kafka_that_the_tests_have_and_the_topics_of_the_configuration() -> None:
    services = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
    kafka = parse_settings((REPOSITORY / "config.yaml").read_text(), {}).kafka
    assert services["kafka"]["image"] == f"apache/kafka:{kafka_version()}"
    assert services["input-topic"]["command"] == [kafka.input_topic]
    assert services["output-topic"]["command"] == [kafka.output_topic]
    advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    for address in (
        services["embedding-service"]["environment"]["EMBEDDING_KAFKA__BOOTSTRAP_SERVERS"],
        *kafka.bootstrap_servers,
    ):
        assert f"://{address}" in advertised


def pins(name: str) -> dict[str, str]:
    """The packages of a requirements file, with their versions and conditions."""
    found: dict[str, list[str]] = {}
    for line in (REPOSITORY / name).read_text().splitlines():
        if match := re.match(r"([a-z0-9-]+)==([^\\]+)", line):
            found.setdefault(match[1], []).append(match[2].strip())
    return {package: ", ".join(versions) for package, versions in found.items()}


def torch_wheel(directory: Path, version: str) -> str:
    """Make a wheel like the CPU builds of torch: another local version, and no CUDA libraries among its needs."""
    directory.mkdir()
    info = f"torch-{version}.dist-info"
    files = {
        "torch/__init__.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\nRequires-Dist: filelock\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = directory / f"torch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path.name


@contextmanager
def serving(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a directory as a package index, to builds on any network of this machine."""
    requested: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(unquote(self.path))
            super().do_GET()

        def log_message(self, *_arguments: object) -> None:
            """Not among the test's output."""

    with ThreadingHTTPServer(("0.0.0.0", 0), partial(Handler, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{own_address()}:{server.server_port}", requested
        finally:
            server.shutdown()
            thread.join()


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Sends nothing; only asks which of our addresses faces the rest of the network.
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
