"""Token ids of several texts as the one array that a model's first module takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase

from embedding_service.encoders.protocol import Ids
from embedding_service.encoders.tokenizing import Tokenizer

# Of different lengths, one over most models' maximum, with what a model may treat in a way of its own.
_PROBES = ("Probe", "  Ünicode, blanks  and CAPITALS. ", " ".join(map(str, range(10_000))))
_MADE_HERE = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_CONSTANT = frozenset({"modality", "prompt_length"})


class Padding:
    """Arrays of int64, shape (texts, tokens of the longest), padded on the right."""

    def __init__(self, padding_id: int, names: frozenset[str], constants: dict[str, Any]) -> None:
        self._padding_id = padding_id
        self._names = names
        self._constants = constants

    @classmethod
    def of(cls, model: SentenceTransformer, prompt: str | None, tokenizer: Tokenizer) -> "Padding | None":
        """For a model that makes the very same of texts by itself; ``None`` for one that treats them in its own way."""
        theirs = dict(model.preprocess(list(_PROBES), prompt=prompt))
        known: PreTrainedTokenizerBase = model.tokenizer
        cut_behind = known.truncation_side == "right"
        if known.pad_token_id is None or not cut_behind or not theirs.keys() <= _MADE_HERE | _CONSTANT:
            return None
        made = frozenset(theirs.keys() & _MADE_HERE)
        padding = cls(known.pad_token_id, made, {name: theirs[name] for name in theirs.keys() - made})
        ours = padding([text.ids for text in tokenizer(_PROBES) if text.ids is not None])
        return padding if all(torch.equal(ours[name], theirs[name]) for name in made) else None

    def __call__(self, rows: Sequence[Ids]) -> dict[str, Any]:
        """The features of one batch."""
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self._padding_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._names:
            arrays["token_type_ids"] = np.zeros_like(ids)
        return {name: torch.from_numpy(arrays[name]) for name in self._names} | self._constants
