"""The embedding contract: which vectors may stand in one topic together.

Two vectors are comparable when their contracts are equal. The contract goes by the content of the model's files and
not by its name, so that the hub, a mirror and a directory with the same weights agree.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

# Every computation at cosine >= 0.9999 to float32 is one class, so that unlike nodes can share a pipeline.
FULL_PRECISION = "full"
FULL_COSINE = 0.9999


@dataclass(frozen=True, slots=True)
class EmbeddingContract:
    """What determines a vector, apart from its text.

    ``files`` maps each file of weights, tokenizer and modules (relative path) to its SHA-256, of JSON without the keys
    that say nothing of vectors; ``max_length`` is in tokens.
    """

    files: Mapping[str, str]
    dimension: int
    normalize: bool
    prompt: str | None
    max_length: int
    precision: str = FULL_PRECISION

    def fingerprint(self) -> str:
        """``v1:`` and 32 hexadecimal digits, stable across processes and machines."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return "v1:" + hashlib.sha256(canonical.encode()).hexdigest()[:32]
