"""A transformer as OpenVINO has it, made of the very weights that PyTorch has loaded."""

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modules import Transformer
from transformers.utils import logging as transformers_logging

from embedding_service.encoders.cache import Cache, Key
from embedding_service.encoders.choice import Precision
from embedding_service.encoders.errors import one_line
from embedding_service.encoders.protocol import Ids, NotRepresentedError
from embedding_service.encoders.pytorch import OfIds

# It would tell Google Analytics of each import and conversion; without it OpenVINO has a stub.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # what makes an import fail

import openvino as ov  # noqa: E402 - after the line above

_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16"}
# One row is shorter, so that what a model does about padding is in the graph.
_EXAMPLE: tuple[Ids, ...] = (np.full(7, 3, dtype=np.int32), np.full(4, 3, dtype=np.int32))
_FILE, _WEIGHTS = "model.xml", "model.bin"
_COPIED_BYTES = 1024 * 1024
# Of each kind, in each stream. What is made for one shape of a batch weighs 0.7 MB, and few shapes come again: with
# OpenVINO's own 5,000 a process grew by a gigabyte in 3,000 batches, and was hardly faster. Texts that come alone have
# no more shapes than lengths; making theirs anew takes a fifth more of the processor.
_KERNELS_OF_MANY, _KERNELS_OF_ONE = 300, 1_000


class _Tokens(torch.nn.Module):
    """A transformer by names that its inputs have in this order."""

    def __init__(self, by_ids: OfIds, names: Sequence[str], constants: dict[str, Any]) -> None:
        super().__init__()
        self._transformer = by_ids.transformer
        self._names = names
        self._constants = constants

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self._transformer(dict(zip(self._names, inputs, strict=True)) | self._constants)["token_embeddings"]


class Graph:
    """A transformer as OpenVINO has it: in a folder, or sharing PyTorch's weights."""

    def __init__(self, model: ov.Model) -> None:
        self._model = model

    @classmethod
    def of(cls, by_ids: OfIds, cache: Cache, key: Key, versions: Key) -> "Graph":
        """From the cache, or converted. Raises ``NotRepresentedError``."""
        converted: list[ov.Model] = []

        def write(folder: Path) -> None:
            converted.append(_convert(by_ids))
            _save(converted[0], folder)

        folder = cache.folder(key, versions, write)
        if folder is None:
            return cls(converted[0] if converted else _convert(by_ids))
        # Read even where it was just made: PyTorch's weights can then go.
        return cls(ov.Core().read_model(folder / _FILE))

    def compiled(self, precision: Precision, threads: int, streams: int) -> ov.CompiledModel:
        """Ready to run. Raises ``NotRepresentedError``."""
        hint = _HINTS[precision]
        options = {
            # Never left to OpenVINO, which takes bfloat16 where it can.
            "INFERENCE_PRECISION_HINT": hint,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            # Pinned threads of two workers would share one processor, and leave the other.
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_OF_MANY if streams > 1 else _KERNELS_OF_ONE,
        }
        try:
            model = ov.Core().compile_model(self._model, "CPU", options)
        except RuntimeError as error:
            raise _not_represented(error) from error
        if model.get_property("INFERENCE_PRECISION_HINT") != getattr(ov.Type, hint):
            raise NotRepresentedError(f"OpenVINO doesn't compute in {precision} on this processor")
        return model


def _convert(by_ids: OfIds) -> ov.Model:
    example = by_ids.padding(_EXAMPLE)
    inputs = {name: value for name, value in example.items() if isinstance(value, torch.Tensor)}
    if not isinstance(by_ids.transformer, Transformer):
        raise NotRepresentedError(f"its first module is a {type(by_ids.transformer).__name__}")
    with torch.inference_mode():
        made = by_ids.transformer(dict(example)).keys() - example.keys()
    if made != {"token_embeddings"}:
        raise NotRepresentedError(f"its transformer makes {', '.join(sorted(made))}")
    module = _Tokens(by_ids, list(inputs), {name: example[name] for name in example.keys() - inputs.keys()}).eval()
    try:
        with _quiet(), torch.inference_mode():
            model = ov.convert_model(module, example_input=tuple(inputs.values()))
    except Exception as error:  # the converter raises anything at what it doesn't know
        raise _not_represented(error) from error
    for port, name in zip(model.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
    return model


def _save(model: ov.Model, folder: Path) -> None:
    try:
        _write(model, folder)
        # A full disk doesn't show in the writing.
        ov.Core().read_model(folder / _FILE)
    except RuntimeError as error:
        raise OSError(f"{folder}: {one_line(error)}") from error


def _write(model: ov.Model, folder: Path) -> None:
    """OpenVINO stops all of Python while it writes: weights to memory, and Python takes them to the volume."""
    with os.fdopen(os.memfd_create(_WEIGHTS), "rb") as weights:
        ov.serialize(model, folder / _FILE, f"/proc/self/fd/{weights.fileno()}")
        with (folder / _WEIGHTS).open("wb") as file:
            shutil.copyfileobj(weights, file, _COPIED_BYTES)


def _not_represented(error: Exception) -> NotRepresentedError:
    return NotRepresentedError(one_line(error))


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing looks at everything that a model has, and much of that warns."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
