"""The real model: where its weights come from, its own vectors, its lengths, its contract."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import pytest
import tokenizers
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from accuracy import Truth
from embedding_service.contract.reasons import DeadLetterReason, Termination, TerminationReason
from embedding_service.contract.settings import DEFAULT_MODEL, ModelSettings
from embedding_service.embedding import Preparation, TokenizedMessage
from embedding_service.encoders import loading, pytorch, tokenizing
from embedding_service.encoders.protocol import EncoderOutOfMemory, LoadedModel, Matrix, Tokenized
from embedding_service.encoders.pytorch import OfIds, PyTorchEncoder, least_cosine
from embedding_service.records import InputRecord, Rejection, parse
from hub import COMMIT, Hub
from real_texts import long_tailed
from service_fixtures import text_value
from word_encoder import WordEncoder

pytestmark = pytest.mark.slow

LOAD = """
import json, sys
from embedding_service.contract.reasons import Termination
from embedding_service.contract.settings import ModelSettings
from embedding_service.encoders.weights import find_weights
try:
    weights = find_weights(ModelSettings.model_validate(json.loads(sys.argv[1])))
    print(json.dumps([weights.source, str(weights.path)]))
except Termination as ended:
    print(json.dumps([ended.reason, ended.message]))
"""


def embed(model: LoadedModel, texts: Sequence[str]) -> Matrix:
    return model.encoder.submit(model.encoder.tokenize(texts)).result()


def find(home: Path, endpoint: str | None, **model: str) -> tuple[str, str]:
    """Find weights in a process of its own, since the hub's client reads its environment once."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | {"HF_HOME": str(home)}
    environ |= {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(model)], env=environ, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    source, detail = json.loads(result.stdout.splitlines()[-1])
    return source, detail


def test_what_is_only_looked_up_does_not_count_as_what_a_token_goes_through(model: LoadedModel) -> None:
    # Of 22.7 million; 0.1 million of them in a layer that not every version of transformers loads.
    assert 10_600_000 < model.parameters < 10_800_000


def test_weights_come_from_the_hub_once_and_then_from_its_cache(model: LoadedModel, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model.path, copy)
    (copy / "pytorch_model.bin").write_bytes(b"a pickle")
    with Hub({"some/model": copy}) as hub:
        source, path = find(tmp_path / "home", hub.url, name="some/model")
        assert source == "hub"
        assert "model.safetensors" in hub.requested
        assert "pytorch_model.bin" not in hub.requested, "a pickle runs code"
        assert path.endswith(COMMIT)
        assert find(tmp_path / "home", hub.url, name="some/model") == ("cache", path)
        assert hub.requested.count("model.safetensors") == 1
    assert find(tmp_path / "home", None, name="some/model") == ("cache", path), "also without the hub"


def test_what_the_hub_does_not_have_is_told_and_not_replaced(model: LoadedModel, tmp_path: Path) -> None:
    with Hub({"some/model": Path(model.path)}) as hub:
        reason, message = find(tmp_path, hub.url, name=DEFAULT_MODEL)
        assert reason == "ModelNotFound", "the hub has answered: the package would be another model"
        reason, message = find(tmp_path, hub.url, name="some/model", revision="v9")
    assert reason == "ModelNotFound"
    assert "'some/model' at revision 'v9'" in message


def test_the_default_model_comes_from_the_installed_package_where_no_hub_is_reached(tmp_path: Path) -> None:
    assert find(tmp_path, "http://127.0.0.1:1", name=DEFAULT_MODEL)[0] == "package"
    assert find(tmp_path, None, name=DEFAULT_MODEL)[0] == "package"
    assert find(tmp_path, None, name=DEFAULT_MODEL, revision=COMMIT)[0] == "ModelNotFound", "of no known revision"
    assert find(tmp_path, None, name="sentence-transformers/all-mpnet-base-v2")[0] == "ModelNotFound"


@pytest.mark.parametrize(
    "name",
    [
        "sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers/all-mpnet-base-v2",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    ],
)
def test_the_models_that_the_original_service_names_are_accepted_by_name(
    model: LoadedModel, tmp_path: Path, name: str
) -> None:
    # The hub's answer stands for the weights; what is tested is the way to them.
    with Hub({name: Path(model.path)}) as hub:
        assert find(tmp_path, hub.url, name=name)[0] == "hub"


def test_a_directory_with_the_same_files_has_the_same_contract(model: LoadedModel, tmp_path: Path) -> None:
    copy = tmp_path / "renamed"
    shutil.copytree(model.path, copy)
    loaded = loading.load(ModelSettings(name=str(copy)))
    assert loaded.source == "directory"
    assert loaded.contract.fingerprint() == model.contract.fingerprint()


def test_vectors_are_those_of_encode_at_every_length(model: LoadedModel) -> None:
    words = " ".join(long_tailed(200)).split()
    texts = [" ".join(words[:count]) for count in range(0, 300, 7)]
    reference = SentenceTransformer(model.path, device="cpu").encode(texts, batch_size=1, show_progress_bar=False)
    vectors = embed(model, texts)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    assert (vectors * reference).sum(axis=1).min() >= 0.9999


def test_of_a_book_only_the_beginning_is_tokenised_and_the_vector_is_the_same(model: LoadedModel) -> None:
    books = ["a tale of two cities " * 100_000, "日本語" * 100_000, "x" * 500_000, " " * 500_000 + "late"]
    assert len(model.encoder.tokenize(books)[0].text) < 10_000
    reference = SentenceTransformer(model.path, device="cpu").encode(books, batch_size=1, show_progress_bar=False)
    assert (embed(model, books) * reference).sum(axis=1).min() >= 0.9999


def test_of_a_text_of_eight_thousand_words_less_than_a_tenth_is_tokenised(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    in_rust = tokenizing._in_rust

    def counted(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Callable[[Sequence[str]], object]:
        encode = in_rust(tokenizer, max_length)
        assert encode is not None

        def seeing(texts: Sequence[str]) -> object:
            seen.extend(texts)
            return encode(texts)

        return seeing

    monkeypatch.setattr(tokenizing, "_in_rust", counted)
    text = " ".join(" ".join(long_tailed(2_000)).split()[:8_000])
    (tokenized,) = tokenizing.Tokenizer(AutoTokenizer.from_pretrained(model.path), None, 256)([text])
    assert (tokenized.length, tokenized.truncated) == (256, True)
    assert 10 * sum(map(len, seen)) < len(text)


def test_a_text_at_which_the_tokenizer_panics_is_rejected_and_no_other() -> None:
    # Rust's panics are no Exceptions; a pattern without an end of its tries makes one.
    rust = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    rust.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("(?:a|a)+$"), "isolated")
    theirs = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]")  # type: ignore[no-untyped-call]  # untyped
    tokenizer = tokenizing.Tokenizer(theirs, None, 256)

    class Panicking(WordEncoder):
        def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
            return tokenizer(texts)

    records = [InputRecord("t", 0, 0, None, text_value("id", text), [], 0.0) for text in ("a", "a" * 40 + "b", "b")]
    good, bad, other = Preparation(Panicking()).prepare([parse(record) for record in records])
    assert isinstance(good, TokenizedMessage)
    assert isinstance(other, TokenizedMessage)
    assert isinstance(bad, Rejection)
    assert bad.reason is DeadLetterReason.ENCODING_FAILED
    assert "the tokenizer panics" in bad.message


def test_every_precision_that_can_be_asked_for_keeps_the_neighbours_of_real_texts(model: LoadedModel) -> None:
    theirs = SentenceTransformer(model.path, device="cpu", local_files_only=True)
    encoder = PyTorchEncoder(theirs, prompt=None, normalize=True)
    assert isinstance(encoder.forward, OfIds)
    reference = replace(model, encoder=encoder, backend="pytorch")
    truth = Truth(reference, long_tailed(100), every=10)
    offered = {
        "float32": loading.load(ModelSettings(device="cpu", precision="float32")),
        "bfloat16": loading.load(ModelSettings(device="cpu", precision="bfloat16")),
        "bfloat16 of a model that OpenVINO can't represent": replace(
            reference, encoder=encoder.in_precision(encoder.forward, torch.bfloat16)
        ),
    }
    for precision, offer in offered.items():
        found = truth.compare(offer)
        assert found["cosine_min"] >= 0.999, (precision, found)
        assert found["top10"] >= 0.9, (precision, found)


def test_a_book_that_is_cut_on_the_left_keeps_its_end(model: LoadedModel, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model.path, copy)
    configuration = copy / "tokenizer_config.json"
    configuration.write_text(json.dumps(json.loads(configuration.read_text()) | {"truncation_side": "left"}))
    encoder = loading.load(ModelSettings(name=str(copy), device="cpu")).encoder
    book = " ".join(long_tailed(400)) + " and at the very end"
    (tokenized,) = encoder.tokenize([book])
    (other,) = encoder.tokenize([book[-5_000:]])
    assert tokenized.ids is not None
    assert other.ids is not None
    assert tokenized.ids.tolist() == other.ids.tolist()
    expected = SentenceTransformer(str(copy), device="cpu").encode([book], show_progress_bar=False)
    assert least_cosine(encoder.submit([tokenized]).result(), expected) >= 0.9999


@pytest.mark.parametrize(
    ("wanted", "length"),
    [
        pytest.param(None, 256, id="the model's own"),
        pytest.param(16, 16, id="a shorter one"),
        pytest.param(512, 512, id="a longer one, as in the original service's config.yaml"),
        pytest.param(4096, 512, id="at most what its positions allow"),
    ],
)
def test_the_maximum_length_is(wanted: int | None, length: int) -> None:
    encoder = loading.load(ModelSettings(max_length=wanted)).encoder
    assert encoder.max_length == length
    long = "word " * 1000
    tokenized = encoder.tokenize(["word", "word " * 10, long, long + "and more"])
    assert [text.length for text in tokenized] == [3, 12, length, length]
    assert [text.truncated for text in tokenized] == [False, False, True, True]
    cut, longer_cut = encoder.submit(tokenized[2:]).result()
    assert np.allclose(cut, longer_cut, atol=1e-5)


def test_a_prompt_goes_before_every_text_and_into_the_contract(model: LoadedModel) -> None:
    prompted = loading.load(ModelSettings(prompt="query: "))
    assert np.allclose(embed(prompted, ["cats"]), embed(model, ["query: cats"]), atol=1e-5)
    ids, expected = prompted.encoder.tokenize(["cats"])[0].ids, model.encoder.tokenize(["query: cats"])[0].ids
    assert ids is not None
    assert expected is not None
    assert ids.tolist() == expected.tolist()
    assert prompted.contract.fingerprint() != model.contract.fingerprint()


def test_normalize_is_asked_of_a_model_that_does_not_normalise_by_itself(model: LoadedModel, tmp_path: Path) -> None:
    copy = tmp_path / "unnormalised"
    shutil.copytree(model.path, copy)
    modules = [m for m in json.loads((copy / "modules.json").read_text()) if "Normalize" not in m["type"]]
    (copy / "modules.json").write_text(json.dumps(modules))
    norms = {
        normalize: np.linalg.norm(embed(loading.load(ModelSettings(name=str(copy), normalize=normalize)), ["a"]))
        for normalize in (True, False)
    }
    assert norms[True] == pytest.approx(1, abs=1e-5)
    assert norms[False] != pytest.approx(1, abs=1e-2)


def contract_with(model: LoadedModel, directory: Path, edit: Callable[[Path], None]) -> str:
    shutil.copytree(model.path, directory)
    edit(directory)
    return loading.load(ModelSettings(name=str(directory))).contract.fingerprint()


def set_json(file: str, **values: object) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        document = json.loads((directory / file).read_text(encoding="utf-8"))
        (directory / file).write_text(json.dumps({**document, **values}), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(set_json("config.json", hidden_act="relu"), id="the activation"),
        pytest.param(set_json("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True), id="the pooling"),
        pytest.param(set_json("tokenizer_config.json", do_lower_case=False), id="the tokenizer's settings"),
    ],
)  # fmt: skip
def test_the_contract_changes_with(model: LoadedModel, tmp_path: Path, edit: Callable[[Path], None]) -> None:
    assert contract_with(model, tmp_path / "edited", edit) != model.contract.fingerprint()


def test_the_contract_stays_when_the_same_model_is_saved_by_another_version(model: LoadedModel, tmp_path: Path) -> None:
    edit = set_json("config.json", transformers_version="9.9.9", _name_or_path="elsewhere")
    assert contract_with(model, tmp_path / "saved", edit) == model.contract.fingerprint()


def test_pickled_weights_are_refused(model: LoadedModel, tmp_path: Path) -> None:
    copy = tmp_path / "pickled"
    shutil.copytree(model.path, copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(Termination, match="weights as a pickle") as raised:
        loading.load(ModelSettings(name=str(copy)))
    assert raised.value.reason is TerminationReason.MODEL_LOAD_FAILED


@pytest.mark.parametrize(
    ("status", "source"),
    [
        pytest.param(401, "ModelNotFound", id="unauthorised is an answer"),
        pytest.param(403, "ModelNotFound", id="forbidden is an answer"),
        pytest.param(404, "ModelNotFound", id="not found is an answer"),
        pytest.param(429, "package", id="too many requests is none"),
        pytest.param(503, "package", id="a failure of the hub is none"),
    ],
)
def test_only_where_the_hub_gives_no_answer_does_the_package_stand_in(tmp_path: Path, status: int, source: str) -> None:
    with Hub({}, status=status) as hub:
        assert find(tmp_path, hub.url, name=DEFAULT_MODEL)[0] == source


# As they were raised by PyTorch 2.11 on a GPU whose memory was taken, and by its CPU allocator.
OUT_OF_MEMORY: dict[str, Exception] = {
    "of the GPU's allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 384.00 MiB."),
    "of a kernel that is loaded at its first use": torch.AcceleratorError(
        "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the documentation"
    ),
    "of cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "of the CPU's allocator": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
    ),
    "of Python": MemoryError(),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
def test_memory_that_runs_out_is_told_from_a_text_at_fault(error: Exception) -> None:
    class Full:
        tokenizer = None
        prompts: ClassVar[dict[str, str]] = {}
        default_prompt_name = None
        calls = 0

        def eval(self) -> "Full":
            return self

        def modules(self) -> list[torch.nn.Module]:
            return []

        def encode(self, texts: list[str], **_: object) -> np.ndarray:
            self.calls += 1
            if self.calls > 1:
                raise error
            return np.ones((len(texts), 4), dtype=np.float32)

    encoder = pytorch.PyTorchEncoder(cast("SentenceTransformer", Full()), prompt=None, normalize=True)
    with pytest.raises(EncoderOutOfMemory):
        encoder.submit(encoder.tokenize(["one", "two"]))
