"""Kafka's own command line tools, from its jars on this machine's Java or from its image."""

import os
import subprocess

from kafka_source import Source, choose, jars_directory, kafka_version, this_machine

TIMEOUT_SECONDS = 120
_JAVA = {
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
}


def kafka_tool(tool: str, *arguments: str, stdin: str = "") -> str:
    """Run a tool by its name without ``.sh``; returns what it prints. Raises ``RuntimeError`` with its last words."""
    machine = this_machine(os.environ)
    if machine.jars or choose(machine) is Source.JARS:
        command = ["java", "-Xmx256m", "-cp", f"{jars_directory(os.environ)}/*", _JAVA[tool], *arguments]
    else:
        image = f"apache/kafka:{kafka_version()}"
        command = ["docker", "run", "--rm", "-i", "--network=host", image, f"/opt/kafka/bin/{tool}.sh", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{tool} ended with exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
