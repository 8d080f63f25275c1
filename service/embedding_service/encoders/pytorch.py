"""sentence-transformers on PyTorch: the reference that every other backend is measured against."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from embedding_service.contract.fingerprint import EmbeddingContract
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import ModelSettings
from embedding_service.encoders.cuda import Transfers
from embedding_service.encoders.padding import Padding
from embedding_service.encoders.protocol import (
    Computation,
    Computed,
    EncoderOutOfMemory,
    LoadedModel,
    Matrix,
    Tokenized,
)
from embedding_service.encoders.tokenizing import Tokenizer
from embedding_service.encoders.weights import find_weights, hash_files

logger = logging.getLogger(__name__)

# What PyTorch has no exception of its own for: the CPU's allocator, a kernel that is loaded at its first use on a full
# GPU, and the workspace of cuBLAS.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
# For models without a tokenizer of the usual kind (static embeddings, bags of words), which cut nothing.
_UNLIMITED = 1_000_000
_CHARACTERS_PER_TOKEN = 4
_LEAST_COSINE = 0.9999


class PyTorchEncoder:
    """A ``SentenceTransformer`` with all of its modules, which are given token ids where it takes them as they are."""

    def __init__(self, model: SentenceTransformer, *, prompt: str | None, normalize: bool) -> None:
        self._model = model.eval()
        # A model may have a prompt of its own, for texts that come without one.
        self._prompt = model.prompts.get(model.default_prompt_name or "") if prompt is None else prompt
        self._normalize = normalize
        self.max_length: int = _UNLIMITED
        self._tokenizer: Tokenizer | None = None
        self._padding: Padding | None = None
        self._transfers: Transfers | None = None
        if isinstance(model.tokenizer, PreTrainedTokenizerBase):
            self.max_length = model.max_seq_length or _UNLIMITED
            self._tokenizer = Tokenizer(model.tokenizer, self._prompt, self.max_length)
            self._transfers = Transfers(model.device) if model.device.type == "cuda" else None
            self._padding = Padding.of(model, self._prompt, self._tokenizer)
            if self._padding is not None and not self._agrees(self._padding):
                self._padding = None
        # The first text through the model also pays for what is made on first use.
        self.dimension: int = self.submit(self.tokenize(["warm-up"])).result().shape[1]

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See ``Encoder``."""
        if self._tokenizer is None:
            return [Tokenized(text, None, 1 + len(text) // _CHARACTERS_PER_TOKEN, truncated=False) for text in texts]
        return self._tokenizer(texts)

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """See ``Encoder``."""
        try:
            if self._padding is None:
                return Computed(np.ascontiguousarray(self._of_texts(batch), dtype=np.float32))
            return self._of_ids(batch, self._padding)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise EncoderOutOfMemory(str(error)) from error
        except RuntimeError as error:
            if not any(words in str(error) for words in _OUT_OF_MEMORY):
                raise
            raise EncoderOutOfMemory(str(error)) from error

    def _agrees(self, padding: Padding) -> bool:
        """Whether vectors are those of sentence-transformers' own ``encode``, which may do more than is known here."""
        probes = self.tokenize(["Probe", "A longer probe, of a few more words."])
        ours, theirs = self._of_ids(probes, padding).result(), self._of_texts(probes)
        cosines = (ours * theirs).sum(axis=1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
        return bool(cosines.min() >= _LEAST_COSINE)

    @torch.inference_mode()
    def _of_ids(self, batch: Sequence[Tokenized], padding: Padding) -> Computation:
        features = padding([text.ids for text in batch if text.ids is not None])
        if self._transfers is None:
            return Computed(np.ascontiguousarray(self._vectors(features).numpy()))
        self._transfers.wait_for_room()
        return self._transfers.back(self._vectors(self._transfers.there(features)))

    def _vectors(self, features: dict[str, Any]) -> torch.Tensor:
        vectors: torch.Tensor = self._model(features)["sentence_embedding"]
        if self._model.truncate_dim is not None:
            vectors = vectors[:, : self._model.truncate_dim]
        # The length of a vector in half precision would be less exact than the vector.
        vectors = vectors.float()
        if self._normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors

    def _of_texts(self, batch: Sequence[Tokenized]) -> Matrix:
        return self._model.encode(
            [text.text for text in batch],
            prompt=self._prompt,
            batch_size=len(batch),
            normalize_embeddings=self._normalize,
            show_progress_bar=False,
        )


def load(settings: ModelSettings) -> LoadedModel:
    """Load and warm the model. Raises ``Termination`` with a reason where it can't be."""
    started = time.monotonic()
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    device = _device(settings.device)
    weights = find_weights(settings)
    try:
        model = SentenceTransformer(
            str(weights.path), device=device, local_files_only=True, model_kwargs={"use_safetensors": True}
        )
        _set_max_length(model, settings.max_length)
        encoder = PyTorchEncoder(model, prompt=settings.prompt, normalize=settings.normalize)
        files = hash_files(weights.path)
    except Exception as error:  # broken files make the libraries below raise anything; each end needs its reason
        raise Termination(
            TerminationReason.MODEL_LOAD_FAILED,
            f"model.name: '{settings.name}' ({weights.source} {weights.path}) can't be loaded: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:500]}",
        ) from error
    contract = EmbeddingContract(
        files=files,
        dimension=encoder.dimension,
        normalize=settings.normalize,
        prompt=settings.prompt,
        max_length=encoder.max_length,
    )
    return LoadedModel(
        encoder, settings.name, weights.source, str(weights.path), device, contract, time.monotonic() - started
    )


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
        model.max_seq_length = length


def _positions(model: SentenceTransformer) -> int | None:
    """Tokens that the model has positions for; ``None`` where nothing bounds them."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # Models of the RoBERTa family begin to count behind the padding token's position.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    config = getattr(model[0], "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None
