"""Token ids of several texts as the one array that a model's first module takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedding_service.encoders.protocol import Ids, NotRepresentedError
from embedding_service.encoders.tokenizing import Tokenizer

# Of different lengths, one over most models' maximum, with what a model may treat in a way of its own.
_PROBES = ("Probe", "  Ünicode, blanks  and CAPITALS. ", " ".join(map(str, range(10_000))))
_MADE_HERE = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_CONSTANT = frozenset({"modality", "prompt_length"})
_UNKNOWN = np.iinfo(np.int64).max


class Padding:
    """Arrays of int64, shape (texts, tokens of the longest), padded on the right."""

    def __init__(self, padding_id: int, names: frozenset[str], constants: dict[str, Any], known_ids: int) -> None:
        self._padding_id = padding_id
        self._names = names
        self._constants = constants
        self._known_ids = known_ids

    @classmethod
    def of(cls, model: SentenceTransformer, prompt: str | None, tokenizer: Tokenizer) -> "Padding":
        """For a model that makes the very same of texts by itself. Raises ``NotRepresentedError`` for any other."""
        theirs = dict(model.preprocess(list(_PROBES), prompt=prompt))
        known: PreTrainedTokenizerBase = model.tokenizer
        if known.pad_token_id is None:
            raise NotRepresentedError("its tokenizer has no padding token")
        if known.truncation_side != "right":
            raise NotRepresentedError("its tokenizer cuts texts at their beginning")
        if more := theirs.keys() - _MADE_HERE - _CONSTANT:
            raise NotRepresentedError(f"it makes {', '.join(sorted(more))} of texts")
        made = frozenset(theirs.keys() & _MADE_HERE)
        constants = {name: theirs[name] for name in theirs.keys() - made}
        padding = cls(known.pad_token_id, made, constants, _known_ids(model[0]))
        ours = padding([text.ids for text in tokenizer(_PROBES) if text.ids is not None])
        if not all(torch.equal(ours[name], theirs[name]) for name in made):
            raise NotRepresentedError("it prepares texts in a way of its own")
        return padding

    def __call__(self, rows: Sequence[Ids]) -> dict[str, Any]:
        """The features of one batch. Raises ``IndexError`` at a token that the model doesn't know."""
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, np.newaxis]
        ids = np.full(mask.shape, self._padding_id, dtype=np.int64)
        ids[mask] = np.concatenate(rows)
        # OpenVINO would compute some vector, and a GPU not work again.
        if (highest := ids.max()) >= self._known_ids:
            raise IndexError(
                f"the tokenizer gives the id {highest}, and the model's tokens are 0 to {self._known_ids - 1}"
            )
        arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if "token_type_ids" in self._names:
            arrays["token_type_ids"] = np.zeros_like(ids)
        return {name: torch.from_numpy(arrays[name]) for name in self._names} | self._constants


def _known_ids(transformer: torch.nn.Module) -> int:
    """How many tokens the model has a vector of."""
    model = getattr(transformer, "auto_model", None)
    try:
        table = model.get_input_embeddings() if isinstance(model, PreTrainedModel) else None
    except NotImplementedError:
        table = None
    return table.num_embeddings if isinstance(table, torch.nn.Embedding) else _UNKNOWN
