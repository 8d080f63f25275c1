"""The real thing on this machine: what is chosen for a model, what is kept of it, and what is refused."""

import json
import logging
import os
import shutil
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from transformers import AutoConfig

from embedding_service.contract.fingerprint import FULL_COSINE
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import ModelSettings
from embedding_service.encoders import loading, processors, selection, trial
from embedding_service.encoders.choice import LEAST_COSINE
from embedding_service.encoders.protocol import Computed, Encoder, LoadedModel, Matrix, Tokenized
from embedding_service.encoders.pytorch import least_cosine
from machine import resident_kib
from tiny_models import bert_mean
from waiting import wait_until

pytestmark = pytest.mark.slow

SHAPES = [(length, size) for length in range(28, 4, -1) for size in range(30, 0, -1)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the cache of this test alone."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return bert_mean(tmp_path)


def load(path: Path, **settings: str) -> LoadedModel:
    return loading.load(ModelSettings.model_validate({"name": str(path), "device": "cpu", **settings}))


def vector(model: LoadedModel) -> Matrix:
    return model.encoder.submit(model.encoder.tokenize(["a text of several words"])).result()


def fails(*_: object, **__: object) -> None:
    raise RuntimeError("done a second time")


def test_the_second_start_converts_nothing_and_tries_nothing(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = load(tiny)
    assert (first.backend, first.contract.precision) == ("openvino", "full")
    assert f"the model is computed by openvino {first.precision}, at a cosine to float32 of" in caplog.text
    monkeypatch.setattr(openvino, "convert_model", fails)
    monkeypatch.setattr(trial, "vectors", fails)
    second = load(tiny)
    assert (second.backend, second.precision) == (first.backend, first.precision)
    assert np.allclose(vector(second), vector(first), atol=1e-6)


@pytest.mark.parametrize(
    ("where", "name", "value", "converted"),
    [
        pytest.param(processors, "cpu_flags", lambda: frozenset({"another"}), False, id="another processor's flags"),
        pytest.param(selection, "version", lambda _: "0", True, id="other versions of the libraries"),
    ],
)
def test_on_another_kind_of_machine_it_is_tried_again(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: ModuleType,
    name: str,
    value: Callable[..., object],
    *,
    converted: bool,
) -> None:
    load(tiny, precision="float32")
    done: list[str] = []
    for module, function in ((trial, "cosine"), (openvino, "convert_model")):
        monkeypatch.setattr(module, function, told(done, function, getattr(module, function)))
    monkeypatch.setattr(where, name, value)
    assert load(tiny, precision="float32").backend == "openvino"
    assert done == (["convert_model"] if converted else []) + ["cosine"]
    load(tiny, precision="float32")
    assert len(done) == 1 + converted, "and what it found is kept, too"


def told(done: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def tell(*arguments: Any, **keywords: Any) -> Any:
        done.append(name)
        return function(*arguments, **keywords)

    return tell


def test_what_is_kept_of_one_model_is_not_taken_for_another(tiny: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny, tmp_path / "other")
    weights = other / "model.safetensors"
    save_file({name: -tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    for path in (tiny, other, tiny):
        model = load(path)
        expected = SentenceTransformer(str(path), device="cpu").encode(
            ["a text of several words"], normalize_embeddings=True, show_progress_bar=False
        )
        assert model.backend == "openvino"
        # Not closer: where the processor has bfloat16, the model may be computed in it.
        assert least_cosine(vector(model), expected) >= FULL_COSINE


class Spoilt:
    """An encoder that is wrong at some batches."""

    def __init__(self, encoder: Encoder, is_wrong: Callable[[Sequence[Tokenized]], bool], wrong: float) -> None:
        self._encoder, self._is_wrong, self._wrong = encoder, is_wrong, wrong
        self.tokenize, self.max_length, self.dimension = encoder.tokenize, encoder.max_length, encoder.dimension

    def submit(self, batch: Sequence[Tokenized]) -> Computed:
        vectors = self._encoder.submit(batch).result()
        return Computed(vectors + self._wrong * vectors[:, ::-1] if self._is_wrong(batch) else vectors)


@pytest.mark.parametrize(
    ("is_wrong", "wrong"),
    [
        pytest.param(lambda batch: len(batch) == 1, 0.1, id="at a text that comes alone"),
        pytest.param(
            lambda batch: len(batch) == 1 and 40 < batch[0].length < 80,
            0.1,
            id="at a text that comes alone and is neither short nor long",
        ),
        pytest.param(lambda batch: batch[0].length < 10, 0.1, id="at short texts"),
        pytest.param(lambda batch: batch[0].length == 256, 0.1, id="at texts as long as the model takes"),
        pytest.param(lambda batch: len(batch) > 1, np.nan, id="with no numbers"),
    ],
)
def test_a_trial_finds_vectors_that_are_not_the_models(
    model: LoadedModel, is_wrong: Callable[[Sequence[Tokenized]], bool], wrong: float
) -> None:
    truth = trial.vectors(model.encoder)
    assert trial.cosine(model.encoder, truth) >= FULL_COSINE
    assert trial.cosine(Spoilt(model.encoder, is_wrong, wrong), truth) < LEAST_COSINE


def test_a_graph_that_was_damaged_is_made_anew(
    home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = vector(load(tiny))
    # A copy, which no process has, as after a worker's end.
    copy = shutil.copytree(home, home.with_name("copy"))
    monkeypatch.setattr(constants, "HF_HOME", str(copy))
    (weights,) = copy.rglob("model.bin")
    os.truncate(weights, weights.stat().st_size // 2)
    model = load(tiny)
    assert model.backend == "openvino"
    assert np.allclose(vector(model), before, atol=1e-6)
    assert "is damaged, and made anew" in caplog.text


def test_a_cache_that_cannot_be_written_does_no_harm(home: Path, tiny: Path) -> None:
    home.touch()
    model = load(tiny)
    assert model.backend == "openvino"
    assert np.isfinite(vector(model)).all()


def test_a_model_that_openvino_cannot_represent_is_computed_by_pytorch_and_the_log_says_why(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise RuntimeError("no translation for aten::strange")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(openvino, "convert_model", unknown)
    model = load(tiny, precision="float32")
    assert (model.backend, model.precision) == ("pytorch", "float32")
    assert "openvino float32 isn't used for this model: RuntimeError: no translation for aten::strange" in caplog.text


def cut_at_the_beginning(path: Path) -> None:
    configuration = path / "tokenizer_config.json"
    configuration.write_text(json.dumps(json.loads(configuration.read_text()) | {"truncation_side": "left"}))


def without_a_transformer(path: Path) -> None:
    words = StaticEmbedding(Tokenizer.from_file(str(path / "tokenizer.json")), embedding_dim=8)
    shutil.rmtree(path)
    SentenceTransformer(modules=[words], device="cpu").save(str(path))


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (cut_at_the_beginning, "its tokenizer cuts texts at their beginning"),
        (without_a_transformer, "it has no tokenizer of the usual kind"),
    ],
)
def test_the_log_says_why_a_model_is_not_given_token_ids(
    tiny: Path, alter: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    alter(tiny)
    caplog.set_level(logging.INFO)
    model = load(tiny)
    assert (model.backend, model.precision) == ("pytorch", "float32")
    assert f"computed by pytorch float32; it is given texts and not token ids, since {reason}" in caplog.text
    with pytest.raises(Termination, match=f"it is given texts and not token ids, since {reason}; expected"):
        load(tiny, precision="bfloat16")


def test_a_maximum_for_a_model_that_has_none_is_refused_in_words_of_the_setting(tiny: Path) -> None:
    without_a_transformer(tiny)
    with pytest.raises(Termination, match=r"model\.max_length: 128: this model takes texts of any length") as raised:
        loading.load(ModelSettings(name=str(tiny), device="cpu", max_length=128))
    assert raised.value.reason is TerminationReason.CONFIGURATION_INVALID


def test_what_converts_and_cannot_be_run_is_computed_by_pytorch(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trial, "cosine", fails)
    model = load(tiny)
    assert (model.backend, model.precision) == ("pytorch", "float32")
    assert "openvino float32 isn't used for this model: RuntimeError: done a second time" in caplog.text


def test_a_model_whose_files_are_in_half_precision_is_computed_in_float32(tiny: Path) -> None:
    SentenceTransformer(str(tiny), device="cpu").to(torch.bfloat16).save(str(tiny))
    assert AutoConfig.from_pretrained(tiny).dtype == torch.bfloat16
    model = load(tiny, precision="float32")
    assert (model.backend, model.precision, model.contract.precision) == ("openvino", "float32", "full")
    reference = SentenceTransformer(str(tiny), device="cpu", model_kwargs={"dtype": torch.float32})
    expected = reference.encode(["a text of several words"], normalize_embeddings=True, show_progress_bar=False)
    assert np.allclose(vector(model), expected, atol=1e-5)


def test_auto_passes_over_what_is_not_exact(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "cosine", lambda *_: 0.99)
    model = load(tiny)
    assert (model.backend, model.precision, model.contract.precision) == ("pytorch", "float32", "full")


def test_a_precision_asked_for_by_name_is_a_contract_of_its_own_where_it_is_less_exact(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = load(tiny, precision="float32").contract.fingerprint()
    monkeypatch.setattr(trial, "cosine", lambda *_: 0.9995)
    model = load(tiny, precision="bfloat16")
    assert (model.precision, model.contract.precision) == ("bfloat16", "bfloat16")
    assert model.contract.fingerprint() != exact


def test_a_precision_that_spoils_the_vectors_is_refused_with_the_figure(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "cosine", lambda *_: 0.98)
    with pytest.raises(Termination, match=r"^ConfigurationInvalid: model\.precision: 'bfloat16': .* 0\.98") as raised:
        load(tiny, precision="bfloat16")
    assert raised.value.reason is TerminationReason.CONFIGURATION_INVALID


def test_float16_is_refused_on_a_cpu(tiny: Path) -> None:
    with pytest.raises(Termination, match=r"model\.precision: 'float16': a CPU .*; expected auto, float32 or bfloat16"):
        load(tiny, precision="float16")


def test_texts_of_the_trial_have_all_lengths(model: LoadedModel) -> None:
    lengths = [text.length for text in model.encoder.tokenize(trial.texts(model.encoder.max_length))]
    assert min(lengths) <= 3
    assert max(lengths) == model.encoder.max_length
    assert len(lengths) >= 24


def test_batches_come_back_as_they_were_given_however_many_are_under_way(model: LoadedModel) -> None:
    texts = [f"{'word ' * (number % 50)}{number}" for number in range(40)]
    tokenized = model.encoder.tokenize(texts)
    alone = np.concatenate([model.encoder.submit([text]).result() for text in tokenized])
    under_way = [model.encoder.submit([text]) for text in tokenized]
    together = np.concatenate([computation.result() for computation in reversed(under_way)])[::-1]
    assert np.allclose(together, alone, atol=1e-6)


def test_batches_of_ever_new_shapes_leave_little_in_memory(model: LoadedModel) -> None:
    batches = (
        [Tokenized("", np.full(length, 3, dtype=np.int32), length, truncated=False)] * size for length, size in SHAPES
    )
    running = deque(model.encoder.submit(batch) for batch in islice(batches, 400))
    before = resident_kib(os.getpid())
    for batch in batches:
        running.append(model.encoder.submit(batch))
        running.popleft().result()
    assert resident_kib(os.getpid()) - before < 50 * 1024


@dataclass
class Begun:
    """Of each batch, how many streams share the threads that compute it; ``slow``, as if none was through yet."""

    streams: list[int] = field(default_factory=list)
    slow: bool = False


class Told:
    """One of OpenVINO's own requests, that tells when it begins."""

    def __init__(self, request: openvino.InferRequest, streams: int, begun: Begun) -> None:
        self._request, self._streams, self._begun = request, streams, begun

    def start_async(self, inputs: object) -> None:
        self._begun.streams.append(self._streams)
        self._request.start_async(inputs)

    def wait_for(self, milliseconds: int) -> bool:
        return not self._begun.slow and bool(self._request.wait_for(milliseconds))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """On two threads."""
    found = Begun()
    request = openvino.CompiledModel.create_infer_request

    def told(model: openvino.CompiledModel) -> Told:
        return Told(request(model), int(model.get_property("NUM_STREAMS")), found)

    monkeypatch.setattr(openvino.CompiledModel, "create_infer_request", told)
    monkeypatch.setattr(processors, "available", lambda: 2)
    return found


def test_a_text_that_comes_alone_has_all_threads_and_texts_beside_one_another_share_them(
    tiny: Path, begun: Begun
) -> None:
    encoder = load(tiny).encoder
    text = encoder.tokenize(["a text of several words"])
    begun.streams.clear()
    found = [encoder.submit(text).result() for _ in range(3)]
    assert begun.streams == [1, 1, 1]
    begun.slow = True
    under_way = [encoder.submit(text) for _ in range(3)]
    assert begun.streams[3:] == [1, 2, 2]
    found += [computation.result() for computation in under_way]
    assert np.allclose(np.concatenate(found), found[0], atol=1e-6)
    encoder.submit(text).result()
    assert begun.streams[6:] == [1]


SAVE = """
import os, sys, threading
from pathlib import Path
import numpy as np
from embedding_service.encoders import openvino_graph
weights = Path(sys.argv[1]) / "model.bin"
# Takes no more than is read from it.
os.mkfifo(weights)
ov = openvino_graph.ov
parameter = ov.opset13.parameter([1_000_000], np.float32)
added = ov.opset13.add(parameter, np.arange(1_000_000, dtype=np.float32))
model = ov.Model([added], [parameter])
saving = threading.Thread(target=openvino_graph._write, args=[model, weights.parent])
saving.start()
print(len(weights.read_bytes()))
saving.join()
"""


def test_while_a_graph_is_written_to_a_slow_volume_all_else_goes_on(tmp_path: Path) -> None:
    # Where nothing else goes on, it never ends.
    found = subprocess.run([sys.executable, "-c", SAVE, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert found.stdout == "4000000\n", found.stderr


THREADS = """
import json, os, sys
from pathlib import Path
import torch
from embedding_service.contract.settings import ModelSettings
from embedding_service.encoders import loading, openvino_graph, processors
sys.stdin.readline()
if len(sys.argv) > 2:
    own, cgroups = map(Path, sys.argv[2:])
    available = processors.available
    processors.available = lambda: available(cgroups, own)
compile = openvino_graph.Graph.compiled
found = {}
def compiled(self, precision, threads, streams):
    model = compile(self, precision, threads, streams)
    found["openvino"] = int(model.get_property("INFERENCE_NUM_THREADS"))
    return model
openvino_graph.Graph.compiled = compiled
loading.load(ModelSettings(name=sys.argv[1], device="cpu"))
print(json.dumps(found | {"torch": torch.get_num_threads(), "tokenizers": int(os.environ["RAYON_NUM_THREADS"])}))
try:
    import openvino_telemetry
except ImportError:
    print("tells nobody")
"""


# Where a cgroup is made in version 1 and 2, and what limits it to one processor.
LIMITS = {
    "/sys/fs/cgroup/cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"},
    "/sys/fs/cgroup": {"cpu.max": "100000 100000"},
}


def make_cgroup() -> Path | None:
    for root, files in LIMITS.items():
        group = Path(root) / f"embedding-test-{uuid.uuid4().hex[:8]}"
        try:
            group.mkdir()
            for name, value in files.items():
                (group / name).write_text(value)
        except OSError:
            with suppress(OSError):
                group.rmdir()
        else:
            return group
    return None


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A cgroup of one processor, real where this machine lets us make one, else what its files would say.

    The file that a process is written to to join it, and where the files are.
    """
    group = make_cgroup()
    if group is not None:
        yield group / "cgroup.procs", []
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 10, "the cgroup is empty")
        group.rmdir()
        return
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("100000 100000")
    yield tmp_path / "cgroup.procs", [str(tmp_path / "own"), str(tmp_path)]


def test_threads_follow_the_containers_limit_and_nobody_is_told_of_it(
    tiny: Path, tmp_path: Path, limited: tuple[Path, list[str]]
) -> None:
    environ = {key: value for key, value in os.environ.items() if key != "RAYON_NUM_THREADS"}
    join, arguments = limited
    with subprocess.Popen(
        [sys.executable, "-c", THREADS, str(tiny), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ | {"HF_HOME": str(tmp_path / "home")},
    ) as process:
        join.write_text(str(process.pid))
        output, _ = process.communicate("\n", timeout=300)
    assert process.returncode == 0
    assert output.splitlines() == ['{"openvino": 1, "torch": 1, "tokenizers": 1}', "tells nobody"]
