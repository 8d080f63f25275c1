"""Other libraries that embed, each a child process in an environment of its own, with the worker's own weights."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from embedding_service.encoders.protocol import Matrix
from embedding_service.encoders.weights import hash_files

SCRIPTS = Path(__file__).resolve().parent / "peer_libraries"
CACHE = Path.home() / ".cache" / "embedding-service" / "peers"
# Of each, the settings that may be its best on a processor.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "infinity_emb": [{"bettertransformer": fused, "batch_size": size} for fused in (False, True) for size in (32, 128)],
    "fastembed": [{"batch_size": 8}, {"batch_size": 32}, {"batch_size": 128}],
}
LEAST_COSINE = 0.9999


class PeerMissingError(Exception):
    """A library that can't be installed here; says why."""


class Peer:
    """A library with its model loaded."""

    def __init__(self, name: str, weights: Path, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, settings
        model = _exported(weights) if name == "fastembed" else weights
        command: list[str | Path] = [_environment(name), SCRIPTS / f"run_{name}.py", model, json.dumps(settings)]
        self._folder = tempfile.TemporaryDirectory()
        # Both tell of every step.
        self._log = Path(self._folder.name) / "log"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.pid = self._child.pid
        self._answer("ready")

    def seconds(self, texts: Sequence[str], reference: Matrix | None = None) -> float:
        """How long it takes for all texts; with a reference, also whether its vectors are those."""
        folder = Path(self._folder.name)
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        asked = {
            "texts": str(folder / "texts.json"),
            "vectors": None if reference is None else str(folder / "vectors.npy"),
        }
        assert self._child.stdin is not None
        print(json.dumps(asked), file=self._child.stdin, flush=True)
        seconds = float(self._answer())
        if reference is not None:
            self._compare(np.load(folder / "vectors.npy"), reference)
        return seconds

    def close(self) -> None:
        """End it."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.wait()
        self._folder.cleanup()

    def _answer(self, expected: str = "") -> str:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            with suppress(ValueError):
                return line if line.strip() == expected else str(float(line))
        status = self._child.wait()
        said = self._log.read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"{self.name} {self.settings}: ended ({status}):\n{said}")

    def _compare(self, vectors: Matrix, reference: Matrix) -> None:
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
        least = float(((vectors * reference).sum(axis=1) / norms).min())
        if least < LEAST_COSINE:
            raise RuntimeError(f"{self.name} {self.settings}: cosine to encode is {least}; expected {LEAST_COSINE}")


def best(name: str, weights: Path, texts: Sequence[str], reference: Matrix) -> Peer:
    """The library with those of its settings that are fastest for these texts."""
    found: list[tuple[float, dict[str, Any]]] = []
    for settings in SETTINGS[name]:
        peer = Peer(name, weights, settings)
        try:
            found.append((peer.seconds(texts, reference), settings))
        finally:
            peer.close()
        print(f"  {name} {settings}: {len(texts) / found[-1][0]:,.1f} texts/s", flush=True)
    return Peer(name, weights, min(found, key=lambda one: one[0])[1])


def _environment(name: str) -> Path:
    """The interpreter of an environment with what is pinned, made where it isn't there."""
    requirements = SCRIPTS / f"requirements-{name}.txt"
    folder = CACHE / f"{name}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = Path(sys.executable).with_name("uv")
        _run(name, [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder])
        _run(name, [uv, "pip", "install", "--quiet", "--python", python, "--requirements", requirements])
        (folder / "complete").touch()
    return python


def _exported(weights: Path) -> Path:
    """A directory with the weights as ONNX, made where it isn't there."""
    script = SCRIPTS / "export_onnx.py"
    key = json.dumps(hash_files(weights), sort_keys=True).encode() + script.read_bytes()
    folder = CACHE / f"onnx-{hashlib.sha256(key).hexdigest()[:16]}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _run("export", [_environment("export"), script, weights, unfinished])
        unfinished.rename(folder)
    return folder


def _run(name: str, command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise PeerMissingError(
            f"{name}: can't be had: {' '.join(map(str, command))} failed; expected what requirements-{name}.txt pins "
            f"to be installable:\n{done.stdout}"
        )
