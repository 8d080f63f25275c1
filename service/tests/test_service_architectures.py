"""Models of other architectures than the default one: their vectors are those of ``SentenceTransformer.encode``."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dropout
from transformers import AutoTokenizer

from embedding_service.contract.settings import ModelSettings
from embedding_service.encoders import loading, selection
from embedding_service.encoders.choice import Backend, Candidate
from embedding_service.encoders.protocol import LoadedModel
from real_texts import long_tailed
from tiny_models import ARCHITECTURES, MAX_LENGTH, bert_mean

pytestmark = pytest.mark.slow


def least_cosine(left: np.ndarray, right: np.ndarray) -> float:
    cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return float(cosines.min())


@pytest.fixture(params=["openvino", "pytorch"], autouse=True)
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Have models computed by one backend, with a cache of the test's own."""
    only = Candidate(request.param, "float32")
    monkeypatch.setattr(selection, "candidates", lambda *_, **__: [only])
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return only.backend


def check(path: Path, backend: Backend, prompt: str | None = None) -> None:
    """Vectors are those of ``encode`` at every length, alone and in batches."""
    model = loading.load(ModelSettings(name=str(path), prompt=prompt, device="cpu"))
    assert model.backend == backend
    encoder = model.encoder
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
    # Where several are under way, another part of a backend computes them than where one is.
    under_way = [encoder.submit(tokenized[start : start + 5]) for start in range(0, len(tokenized), 5)]
    for vectors in (
        encoder.submit(tokenized).result(),
        np.concatenate([encoder.submit([text]).result() for text in tokenized]),
        np.concatenate([computation.result() for computation in under_way]),
    ):
        assert least_cosine(vectors, reference) >= 0.9999
        assert least_cosine(vectors - mean, reference - mean) >= 0.9999


@pytest.mark.parametrize("make", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
@pytest.mark.parametrize("prompt", [None, "query: "], ids=["without a prompt", "with a prompt"])
def test_vectors_are_those_of_encode_at_every_length_alone_and_in_batches(
    make: Callable[[Path], Path], prompt: str | None, tmp_path: Path, backend: Backend
) -> None:
    check(make(tmp_path), backend, prompt)


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def with_a_default_prompt(path: Path) -> None:
    change(path / "config_sentence_transformers.json", prompts={"q": "query: "}, default_prompt_name="q")


def with_a_dropout_layer(path: Path) -> None:
    model = SentenceTransformer(str(path), device="cpu")
    model.append(Dropout(0.5))
    model.save(str(path))


OF_THEIR_OWN = {
    "a prompt for texts that come without one": with_a_default_prompt,
    "a layer that only a training uses": with_a_dropout_layer,
}


@pytest.mark.parametrize("alter", OF_THEIR_OWN.values(), ids=OF_THEIR_OWN.keys())
def test_a_model_is_taken_as_it_is_with(alter: Callable[[Path], None], tmp_path: Path, backend: Backend) -> None:
    path = bert_mean(tmp_path)
    alter(path)
    check(path, backend)


def test_a_token_that_the_model_does_not_know_fails_alike_and_harms_no_other(tmp_path: Path, backend: Backend) -> None:
    path = bert_mean(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    known = len(tokenizer)
    tokenizer.add_tokens(["novelty"])
    tokenizer.save_pretrained(path)
    model = loading.load(ModelSettings(name=str(path), device="cpu"))
    assert model.backend == backend
    strange, plain = model.encoder.tokenize(["such a novelty", "such a thing"])
    with pytest.raises(IndexError, match=f"gives the id {known}, and the model's tokens are 0 to {known - 1}"):
        model.encoder.submit([plain, strange]).result()
    assert np.isfinite(model.encoder.submit([plain]).result()).all()


def test_texts_are_tokenised_once(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object, **__: object) -> None:
        raise AssertionError("texts are tokenised a second time")

    tokenized = model.encoder.tokenize(["one", "two words"])
    monkeypatch.setattr(SentenceTransformer, "preprocess", again)
    assert model.encoder.submit(tokenized).result().shape == (2, model.encoder.dimension)
