"""Where Apache Kafka comes from on this machine: a given cluster, Maven Central's jars on Java, or a container."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from xml.etree import ElementTree as ET

POM = Path(__file__).with_name("kafka.pom.xml")
OLDEST_JAVA = 17
DOWNLOAD_TIMEOUT_SECONDS = 600


class KafkaUnavailable(Exception):  # noqa: N818 - says what is so, and what to install
    """No Kafka can be had, or the one that was chosen does not run; the message says what to do."""


class Source(Enum):
    """Where the broker comes from, in the order of preference."""

    GIVEN = "the cluster of KAFKA_BOOTSTRAP_SERVERS"
    JARS = "jars of Maven Central on this machine's Java"
    DOCKER = "the image apache/kafka on this machine's Docker"


@dataclass(frozen=True, slots=True)
class Machine:
    """What of Kafka's needs is here. ``docker_runs`` is a function, for it takes long to find out."""

    bootstrap_servers: str | None
    java: int | None
    jars: bool
    maven: bool
    docker_runs: Callable[[], bool]


def choose(machine: Machine) -> Source:
    """Decide where Kafka comes from.

    Raises ``KafkaUnavailable`` naming what to install where there is nothing to choose from.
    """
    if machine.bootstrap_servers:
        return Source.GIVEN
    if (machine.java or 0) >= OLDEST_JAVA and (machine.jars or machine.maven):
        return Source.JARS
    if machine.docker_runs():
        return Source.DOCKER
    raise KafkaUnavailable(_what_to_install(machine))


def _what_to_install(machine: Machine) -> str:
    missing = []
    if (machine.java or 0) < OLDEST_JAVA:
        found = f" (found {machine.java})" if machine.java else ""
        missing.append(
            f"Java {OLDEST_JAVA} or newer{found} (Debian: apt-get install openjdk-{OLDEST_JAVA}-jre-headless)"
        )
    if not machine.jars and not machine.maven:
        missing.append("Maven (Debian: apt-get install maven)")
    return (
        f"these tests need a real Apache Kafka, and this machine has none: install {' and '.join(missing)}; "
        "or start a Docker engine; or set KAFKA_BOOTSTRAP_SERVERS=host:port to a cluster that tests may write to"
    )


def this_machine(environ: Mapping[str, str]) -> Machine:
    """Look at what is installed here."""
    return Machine(
        bootstrap_servers=environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        java=_java_version(),
        jars=jars_directory(environ).is_dir(),
        maven=shutil.which("mvn") is not None,
        docker_runs=_docker_runs,
    )


def kafka_version() -> str:
    """Return the version of Kafka that the tests run against."""
    names = {"m": "http://maven.apache.org/POM/4.0.0"}
    version = ET.parse(POM).findtext("m:properties/m:kafka.version", namespaces=names)
    if version is None:
        raise ValueError(f"{POM}: no property kafka.version")
    return version


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Where tests keep what takes long to get or to make."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedding-service"


def jars_directory(environ: Mapping[str, str]) -> Path:
    """Where Kafka's jars are cached, whether they are there yet or not."""
    return cache_directory(environ) / f"kafka-{kafka_version()}" / "libs"


def fetch_jars(libs: Path) -> None:
    """Download Kafka's jars to ``libs``, which appears only when it is complete.

    Raises ``KafkaUnavailable`` with Maven's own words where they can't be had.
    """
    libs.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=libs.parent) as temporary:
        download = Path(temporary) / "libs"
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={download}"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise KafkaUnavailable(f"{' '.join(command)}: not done after {DOWNLOAD_TIMEOUT_SECONDS} s") from None
        if done.returncode != 0:
            raise KafkaUnavailable(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        try:
            download.rename(libs)
        except OSError:
            # Another run was quicker; its jars are the same.
            if not libs.is_dir():
                raise


def parse_java_version(output: str) -> int | None:
    """Return the feature release (8, 17, …) in what ``java -version`` prints."""
    match = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(match[1]) if match else None


def _java_version() -> int | None:
    if shutil.which("java") is None:
        return None
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60, check=False)
    return parse_java_version(done.stderr) if done.returncode == 0 else None


def _docker_runs() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        # The client alone is often installed; `info` fails where no engine answers it.
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
