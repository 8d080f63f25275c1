"""A model from its files to an encoder that is ready, on the backend that suits the machine."""

import gc
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import constants
from sentence_transformers import SentenceTransformer
from transformers.utils.logging import disable_progress_bar

from embedding_service.contract.fingerprint import EmbeddingContract
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import ModelSettings
from embedding_service.encoders import processors
from embedding_service.encoders.cache import Cache
from embedding_service.encoders.cuda import settle_attention
from embedding_service.encoders.errors import one_line
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.encoders.pytorch import PyTorchEncoder
from embedding_service.encoders.selection import Machine, PrecisionRefusedError, Selected, Selection
from embedding_service.encoders.weights import Weights, find_weights, hash_files

logger = logging.getLogger(__name__)


def load(settings: ModelSettings) -> LoadedModel:
    """Load and warm the model. Raises ``Termination`` with a reason where it can't be."""
    started = time.monotonic()
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    device = _device(settings.device)
    threads = processors.available()
    processors.follow_limit(threads)
    if device == "cuda":
        settle_attention()
    weights = find_weights(settings)
    try:
        selected, contract, parameters = _load(settings, weights, Machine.this(device, threads))
    except Termination:
        raise
    except PrecisionRefusedError as error:
        raise Termination(
            TerminationReason.CONFIGURATION_INVALID, f"model.precision: '{settings.precision}': {error}"
        ) from None
    except Exception as error:  # broken files make the libraries below raise anything; each end needs its reason
        raise Termination(
            TerminationReason.MODEL_LOAD_FAILED,
            f"model.name: '{settings.name}' ({weights.source} {weights.path}) can't be loaded: {one_line(error)}",
        ) from error
    # Of what isn't used any more, parts refer to one another: PyTorch's weights beside OpenVINO's.
    gc.collect()
    return LoadedModel(
        encoder=selected.encoder,
        name=settings.name,
        source=weights.source,
        path=str(weights.path),
        device=device,
        backend=selected.candidate.backend,
        precision=selected.candidate.precision,
        contract=contract,
        seconds=time.monotonic() - started,
        parameters=parameters,
    )


def _load(settings: ModelSettings, weights: Weights, machine: Machine) -> tuple[Selected, EmbeddingContract, int]:
    # Float32 whatever the files hold: it is what precisions are measured against.
    options = {"use_safetensors": True, "dtype": torch.float32}
    model = SentenceTransformer(str(weights.path), device=machine.device, local_files_only=True, model_kwargs=options)
    _set_max_length(model, settings.max_length)
    reference = PyTorchEncoder(model, prompt=settings.prompt, normalize=settings.normalize)
    contract = EmbeddingContract(
        files=hash_files(weights.path),
        dimension=reference.dimension,
        normalize=settings.normalize,
        prompt=settings.prompt,
        max_length=reference.max_length,
    )
    cache = Cache(Path(constants.HF_HOME) / "embedding-service")
    selected = Selection(reference, contract, machine, cache).run(settings.precision)
    return selected, replace(contract, precision=selected.precision_class), reference.parameters


def _device(device: str) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        raise Termination(
            TerminationReason.DEVICE_UNAVAILABLE,
            "model.device: 'cuda': PyTorch sees no CUDA device; expected a GPU and its driver, or auto or cpu",
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _set_max_length(model: SentenceTransformer, wanted: int | None) -> None:
    """An explicit length wins over the model's own, up to what its positions allow."""
    own = model.max_seq_length
    limit = _positions(model)
    length = wanted or own
    if length is None:
        return
    if limit is not None and length > limit:
        if wanted:
            logger.warning(
                "model.max_length: %d: this model has positions for %d tokens; using %d", wanted, limit, limit
            )
        length = limit
    if length != own:
        try:
            model.max_seq_length = length
        except AttributeError:
            raise Termination(
                TerminationReason.CONFIGURATION_INVALID,
                f"model.max_length: {length}: this model takes texts of any length, and can't be given a maximum; "
                "expected none",
            ) from None


def _positions(model: SentenceTransformer) -> int | None:
    """Tokens that the model has positions for; ``None`` where nothing bounds them."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # Models of the RoBERTa family begin to count behind the padding token's position.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    config = getattr(model[0], "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    # XLNet's is -1.
    return positions if isinstance(positions, int) and positions > 0 else None
