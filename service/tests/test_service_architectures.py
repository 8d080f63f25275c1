"""Models of other architectures than the default one: their vectors are those of ``SentenceTransformer.encode``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedding_service.contract.settings import ModelSettings
from embedding_service.encoders import pytorch
from real_texts import long_tailed
from tiny_models import ARCHITECTURES, MAX_LENGTH

pytestmark = pytest.mark.slow


def least_cosine(left: np.ndarray, right: np.ndarray) -> float:
    cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return float(cosines.min())


@pytest.mark.parametrize("make", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
@pytest.mark.parametrize("prompt", [None, "query: "], ids=["without a prompt", "with a prompt"])
def test_vectors_are_those_of_encode_at_every_length_alone_and_in_batches(
    make: Callable[[Path], Path], prompt: str | None, tmp_path: Path
) -> None:
    path = make(tmp_path)
    encoder = pytorch.load(ModelSettings(name=str(path), prompt=prompt)).encoder
    words = " ".join(long_tailed(50)).split()
    shortest = min(text.length for text in encoder.tokenize(words))
    short = [word for word, text in zip(words, encoder.tokenize(words), strict=True) if text.length == shortest]
    texts = ["", *(" ".join(short[:count]) for count in range(1, 2 * MAX_LENGTH))]
    reference = SentenceTransformer(str(path), device="cpu").encode(
        texts, prompt=prompt, batch_size=1, normalize_embeddings=True, show_progress_bar=False
    )
    tokenized = encoder.tokenize(texts)
    assert {text.length for text in tokenized} >= set(range(shortest, MAX_LENGTH + 1))
    # Random models make all vectors alike: what differs between texts is compared, too.
    mean = reference.mean(axis=0)
    for vectors in (encoder.encode(tokenized), np.concatenate([encoder.encode([text]) for text in tokenized])):
        assert least_cosine(vectors, reference) >= 0.9999
        assert least_cosine(vectors - mean, reference - mean) >= 0.9999
