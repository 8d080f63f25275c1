"""sentence-transformers on PyTorch: the reference that every other backend is measured against."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase

from embedding_service.contract.fingerprint import FULL_COSINE
from embedding_service.encoders.cuda import Transfers
from embedding_service.encoders.padding import Padding
from embedding_service.encoders.protocol import (
    Computation,
    Computed,
    EncoderOutOfMemory,
    Matrix,
    NotRepresentedError,
    Tokenized,
)
from embedding_service.encoders.tokenizing import Tokenizer

# What PyTorch has no exception of its own for: the CPU's allocator, a kernel that is loaded at its first use on a full
# GPU, and the workspace of cuBLAS.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
# For models without a tokenizer of the usual kind (static embeddings, bags of words), which cut nothing.
_UNLIMITED = 1_000_000
_CHARACTERS_PER_TOKEN = 4


class Head:
    """What comes behind a transformer, in float32: pooling, dense layers, the vector's length."""

    def __init__(self, modules: Sequence[torch.nn.Module], truncate_dim: int | None, *, normalize: bool) -> None:
        self._modules = modules
        self._truncate_dim = truncate_dim
        self._normalize = normalize

    @torch.inference_mode()
    def __call__(self, features: dict[str, Any]) -> torch.Tensor:
        """Vectors, from what the transformer made."""
        # A mean of many small numbers, and the length of a vector, lose more in half precision than the model does.
        features = {name: _in_float32(value) for name, value in features.items()}
        for module in self._modules:
            features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"]
        if self._truncate_dim is not None:
            vectors = vectors[:, : self._truncate_dim]
        if self._normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors


class OfIds:
    """Vectors of token ids, by the model's modules."""

    def __init__(self, padding: Padding, transformer: torch.nn.Module, head: Head, device: torch.device) -> None:
        self.padding = padding
        self.transformer = transformer
        self.head = head
        self._device = device
        self._transfers = Transfers(device) if device.type == "cuda" else None

    def in_precision(self, dtype: torch.dtype) -> "OfIds":
        """The same with a copy of the transformer."""
        return OfIds(self.padding, copy.deepcopy(self.transformer).to(dtype), self.head, self._device)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Tokenized]) -> Computation:
        """Compute one batch, or begin to."""
        features = self.padding([text.ids for text in batch if text.ids is not None])
        if self._transfers is None:
            return Computed(np.ascontiguousarray(self._vectors(features).numpy()))
        self._transfers.wait_for_room()
        return self._transfers.back(self._vectors(self._transfers.there(features)))

    def _vectors(self, features: dict[str, Any]) -> torch.Tensor:
        return self.head(self.transformer(features))


class OfTexts:
    """Vectors of texts, by sentence-transformers' own ``encode``, which tokenises a second time."""

    def __init__(self, model: SentenceTransformer, prompt: str | None, *, normalize: bool) -> None:
        self._model = model
        self._prompt = prompt
        self._normalize = normalize

    def __call__(self, batch: Sequence[Tokenized]) -> Computed:
        """Compute one batch."""
        vectors = self._model.encode(
            [text.text for text in batch],
            prompt=self._prompt,
            batch_size=len(batch),
            normalize_embeddings=self._normalize,
            show_progress_bar=False,
        )
        return Computed(np.ascontiguousarray(vectors, dtype=np.float32))


class PyTorchEncoder:
    """A ``SentenceTransformer`` with all of its modules, which are given token ids where it takes them as they are."""

    def __init__(self, model: SentenceTransformer, *, prompt: str | None, normalize: bool) -> None:
        model = model.eval()
        # A model may have a prompt of its own, for texts that come without one.
        prompt = model.prompts.get(model.default_prompt_name or "") if prompt is None else prompt
        self.max_length: int = _UNLIMITED
        self.tokenizer: Callable[[Sequence[str]], list[Tokenized]] = _estimated
        self.parameters = _parameters(model)
        by_texts = OfTexts(model, prompt, normalize=normalize)
        self.forward: OfIds | OfTexts = by_texts
        # Why it isn't given token ids, where it isn't.
        self.why_texts = ""
        try:
            self.forward = self._of_ids(model, prompt, by_texts, normalize=normalize)
        except NotRepresentedError as error:
            self.why_texts = f"it is given texts and not token ids, since {error}"
        # The first text through the model also pays for what is made on first use.
        self.dimension: int = self.submit(self.tokenize(["warm-up"])).result().shape[1]

    def in_precision(self, by_ids: OfIds, dtype: torch.dtype) -> "PyTorchEncoder":
        """The same, with the transformer alone in another precision."""
        found = copy.copy(self)
        found.forward = by_ids.in_precision(dtype)
        found.submit(found.tokenize(["warm-up"])).result()
        return found

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See ``Encoder``."""
        return self.tokenizer(texts)

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """See ``Encoder``."""
        try:
            return self.forward(batch)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise EncoderOutOfMemory(str(error)) from error
        except RuntimeError as error:
            if not any(words in str(error) for words in _OUT_OF_MEMORY):
                raise
            raise EncoderOutOfMemory(str(error)) from error

    def _of_ids(self, model: SentenceTransformer, prompt: str | None, by_texts: OfTexts, *, normalize: bool) -> OfIds:
        """By ids where that gives the vectors of ``encode``, which may do more than is known here.

        Raises ``NotRepresentedError``.
        """
        if not isinstance(model.tokenizer, PreTrainedTokenizerBase):
            raise NotRepresentedError("it has no tokenizer of the usual kind")
        self.max_length = model.max_seq_length or _UNLIMITED
        self.tokenizer = tokenizer = Tokenizer(model.tokenizer, prompt, self.max_length)
        head = Head(list(model)[1:], model.truncate_dim, normalize=normalize)
        by_ids = OfIds(Padding.of(model, prompt, tokenizer), model[0], head, model.device)
        probes = tokenizer(["Probe", "A longer probe, of a few more words."])
        if least_cosine(by_ids(probes).result(), by_texts(probes).result()) < FULL_COSINE:
            raise NotRepresentedError("its vectors of token ids aren't those of encode")
        return by_ids


def least_cosine(left: Matrix, right: Matrix) -> float:
    """Of each row of one to the same row of the other; 0 where any isn't finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return float(cosines.min()) if np.isfinite(cosines).all() else 0.0


def _parameters(model: SentenceTransformer) -> int:
    """How many numbers each token is multiplied with: all but those that are looked up."""
    return sum(
        numbers.numel()
        for module in model.modules()
        if not isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag)
        for numbers in module.parameters(recurse=False)
    )


def _in_float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _estimated(texts: Sequence[str]) -> list[Tokenized]:
    return [Tokenized(text, None, 1 + len(text) // _CHARACTERS_PER_TOKEN, truncated=False) for text in texts]
