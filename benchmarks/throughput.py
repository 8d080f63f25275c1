"""Messages a second of all that the benchmark of the engine compares."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import contestants as run
import peers
from contestants import Stream
from quiet import spread, undisturbed
from sentence_transformers import SentenceTransformer

from embedding_service.encoders.protocol import LoadedModel

LOOP = "Kafka to Kafka"
# Texts are tokenised, then computed; the loop does both at a time, so the model by itself is a ceiling of its own.
ENCODER = "the encoder alone"
MODEL = "the model alone"
ENCODE = "encode in batches of 32"
NAIVE = "poll one, encode one"

Row = dict[str, Any]


class Throughput:
    """Contestants, each with its rates by round. A disturbed measurement is replaced by its repetition."""

    def __init__(
        self,
        stream: Stream,
        models: Mapping[str, LoadedModel],
        theirs: SentenceTransformer,
        found: Sequence[peers.Peer],
        texts: Sequence[str],
    ) -> None:
        self._stream, self._texts = stream, texts
        self._tokens = sum(text.length for text in models["float32"].encoder.tokenize(texts))
        # Of the last measurement of each.
        self._computing: dict[str, float] = {}
        self._precisions: dict[str, str] = {}
        self._contestants: dict[str, Callable[[], float]] = {}
        for precision, model in models.items():
            encoder, loop = _of(ENCODER, precision), _of(LOOP, precision)
            self._precisions[encoder] = loop
            self._contestants[encoder] = partial(self._ceiling, encoder, model)
            self._contestants[loop] = partial(self._loop, model)
        self._contestants[ENCODE] = lambda: run.encode_in_batches(theirs, texts)
        self._contestants[NAIVE] = lambda: run.naive_loop(stream, theirs)
        self._peers = [peer.name for peer in found]
        self._contestants |= {peer.name: partial(peer.seconds, texts) for peer in found}

    def run(self, rounds: int) -> Row:
        """Measure and report."""
        rates: dict[str, list[float]] = {}
        others: dict[str, list[float]] = {}
        for number in range(rounds):
            for name, work in self._contestants.items():
                seconds, share = undisturbed(work)
                rates.setdefault(name, []).append(len(self._texts) / seconds)
                others.setdefault(name, []).append(share)
                print(f"round {number + 1}: {name}: {rates[name][-1]:,.1f} msgs/s (others {share:.1%})", flush=True)
                if name in self._precisions:
                    alone = name.replace(ENCODER, MODEL)
                    rates.setdefault(alone, []).append(len(self._texts) / self._computing[name])
        return {"others": others} | self._report(rates)

    def _ceiling(self, name: str, model: LoadedModel) -> float:
        tokenizing, self._computing[name] = run.ceiling(model, self._texts)
        return tokenizing + self._computing[name]

    def _loop(self, model: LoadedModel) -> float:
        return run.flow(self._stream, model).seconds

    def _report(self, rates: dict[str, list[float]]) -> Row:
        tokens = self._tokens / len(self._texts)
        for name, found in rates.items():
            print(f"{name}: median {spread(found, 1)} msgs/s, {tokens * statistics.median(found):,.0f} tokens/s")
        pairs = [
            (loop, other)
            for encoder, loop in self._precisions.items()
            # The libraries compute in float32.
            for other in (
                encoder,
                encoder.replace(ENCODER, MODEL),
                ENCODE,
                NAIVE,
                *(self._peers if loop == LOOP else ()),
            )
        ]
        ratios = {f"{a} / {b}": [one / other for one, other in zip(rates[a], rates[b], strict=True)] for a, b in pairs}
        for name, found in ratios.items():
            print(f"{name}: median {spread(found, 3)}")
        per_second = {name: [tokens * rate for rate in found] for name, found in rates.items()}
        return {"messages_per_second": rates, "tokens_per_second": per_second, "ratios": ratios}


def _of(name: str, precision: str) -> str:
    return name if precision == "float32" else f"{name}, {precision}"
