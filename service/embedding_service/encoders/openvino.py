"""The transformer on OpenVINO, for CPUs: batches that run beside one another.

What comes behind it (pooling, dense layers, normalising) stays sentence-transformers' own, in float32: it is a
thousandth of the work, and exact for every module that there is.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedding_service.encoders.choice import Precision
from embedding_service.encoders.openvino_graph import Graph
from embedding_service.encoders.protocol import Computation, EncoderOutOfMemory, Matrix, Tokenized
from embedding_service.encoders.pytorch import Head, OfIds, PyTorchEncoder

if TYPE_CHECKING:
    import openvino as ov

# Each has memory of its own.
_MOST_STREAMS = 8
_REQUESTS_PER_STREAM = 2
# Weights are in memory a second time for it: up to 400 MB of them.
_LONE_MOST_PARAMETERS = 100_000_000
_OUT_OF_MEMORY = ("bad_alloc", "allocate")


class _Running:
    """A batch in OpenVINO. See ``Computation``."""

    def __init__(
        self, request: "ov.InferRequest", features: dict[str, Any], head: Head, free: "list[ov.InferRequest]"
    ) -> None:
        self._request = request
        self._features = features
        self._head = head
        self._free = free
        # Whoever asks for the result may meet whoever needs the request.
        self._settling = threading.Lock()
        self.outcome: Matrix | Exception | None = None

    def done(self) -> bool:
        try:
            return self.outcome is not None or bool(self._request.wait_for(0))
        except RuntimeError:  # failed, which is the result's to tell
            return True

    def result(self) -> Matrix:
        outcome = self.settle()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def settle(self) -> Matrix | Exception:
        """Wait, take what came out, and give back the request."""
        with self._settling:
            if self.outcome is None:
                outcome = self._computed()
                self._free.append(self._request)
                # Last: once this is seen, the request is among the free ones.
                self.outcome = outcome
            return self.outcome

    def _computed(self) -> Matrix | Exception:
        try:
            self._request.wait()
            tokens = torch.from_numpy(self._request.get_output_tensor(0).data)
            vectors = self._head(self._features | {"token_embeddings": tokens})
            return np.ascontiguousarray(vectors.numpy())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result's to tell
            return _told(error)


class OpenVinoEncoder:
    """Computes as many batches at a time as it has streams, and holds as many more ready.

    A batch that comes where nothing is computed has all threads, not only a stream's.
    """

    def __init__(
        self, graph: Graph, precision: Precision, threads: int, reference: PyTorchEncoder, by_ids: OfIds
    ) -> None:
        """Raises ``NotRepresentedError``."""
        self.dimension, self.max_length = reference.dimension, reference.max_length
        self._tokenizer, self._padding, self._head = reference.tokenizer, by_ids.padding, by_ids.head
        streams = min(threads, _MOST_STREAMS)
        model = graph.compiled(precision, threads, streams)
        self._names = [port.any_name for port in model.inputs]
        self._lone: list[ov.InferRequest] = []
        self._free = [model.create_infer_request() for _ in range(_REQUESTS_PER_STREAM * streams)]
        self._running: deque[_Running] = deque()
        self._warm_up()
        # A stream has one thread of two, so a lone text would take up to twice as long.
        if streams > 1 and reference.parameters <= _LONE_MOST_PARAMETERS:
            self._lone.append(graph.compiled(precision, threads, 1).create_infer_request())
            self._warm_up()

    def _warm_up(self) -> None:
        self.submit(self.tokenize(["warm-up"])).result()

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See ``Encoder``."""
        return self._tokenizer(texts)

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """See ``Encoder``."""
        features = self._padding([text.ids for text in batch if text.ids is not None])
        free = self._requests()
        request = free.pop()
        try:
            request.start_async({name: features[name].numpy() for name in self._names})
        except Exception as error:
            free.append(request)
            raise _told(error) from error
        while self._running and self._running[0].outcome is not None:
            self._running.popleft()
        self._running.append(_Running(request, features, self._head, free))
        return self._running[-1]

    def _requests(self) -> "list[ov.InferRequest]":
        """Where the next one is to be taken from and given back to; waits until there is one."""
        if self._lone and all(running.done() for running in self._running):
            return self._lone
        while not self._free:
            self._running.popleft().settle()
        return self._free


def _told(error: Exception) -> Exception:
    if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return EncoderOutOfMemory(str(error))
    return error
