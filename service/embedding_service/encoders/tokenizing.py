"""Texts to token ids, each once, and of a book only its beginning."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tokenizers
from transformers import PreTrainedTokenizerBase

from embedding_service.encoders.protocol import Ids, Tokenized

# Nearly every text has more tokens than that.
_CHARACTERS_PER_HEAD_TOKEN = 8
# Tokenizers take a longer word as unknown: one token.
_LONGEST_WORD_TOKENS = 128

# Of each text its ids, cut at the maximum length, and how many they were before.
_Encode = Callable[[Sequence[str]], list[tuple[Ids, int]]]


class Tokenizer:
    """A model's tokenizer with its prompt and its maximum length. Used by one thread at a time."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str | None, max_length: int) -> None:
        self._encode = _in_rust(tokenizer, max_length) or _in_python(tokenizer, max_length)
        self._prompt = prompt or ""
        self._max_length = max_length
        # Where the beginning has so many tokens, its last word, cut or not, is behind all that the model takes.
        self._enough = max_length + _LONGEST_WORD_TOKENS
        self._head_characters = _CHARACTERS_PER_HEAD_TOKEN * self._enough
        if tokenizer.truncation_side != "right":
            self._head_characters = sys.maxsize

    def __call__(self, texts: Sequence[str]) -> list[Tokenized]:
        """Each text in tokens, cut at the maximum length."""
        parts = [text[: self._head_characters] for text in texts]
        found = self._encode([self._prompt + part for part in parts]) if parts else []
        for index, text in enumerate(texts):
            # Rare: a long text whose beginning has few tokens, as blanks have.
            if len(text) > self._head_characters and found[index][1] < self._enough:
                parts[index] = text
                (found[index],) = self._encode([self._prompt + text])
        return [
            Tokenized(part, ids, len(ids), count > self._max_length)
            for part, (ids, count) in zip(parts, found, strict=True)
        ]


def _in_rust(tokenizer: PreTrainedTokenizerBase, max_length: int) -> _Encode | None:
    """Without what transformers makes besides; of a tokenizer that isn't Python's."""
    if not tokenizer.is_fast:
        return None
    # A copy: transformers sets truncation and padding of its own one at each call.
    own = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.enable_truncation(max_length, direction=tokenizer.truncation_side)
    own.no_padding()
    # Each of the parts that a text is cut into has them.
    special = own.num_special_tokens_to_add(False)

    def encode(texts: Sequence[str]) -> list[tuple[Ids, int]]:
        try:
            found = own.encode_batch_fast(list(texts))
        except BaseException as error:
            # A panic of Rust's is no Exception, and would end the worker at every start for a text's sake.
            if type(error).__name__ != "PanicException":
                raise
            raise RuntimeError(f"the tokenizer panics: {error}") from None
        return [
            (np.array(first.ids, dtype=np.int32), len(first) + sum(len(part) - special for part in first.overflowing))
            for first in found
        ]

    return encode


def _in_python(tokenizer: PreTrainedTokenizerBase, max_length: int) -> _Encode:
    options = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False, "verbose": False}

    def ids(texts: Sequence[str], **truncation: Any) -> list[Ids]:
        return [
            np.array(found, dtype=np.int32) for found in tokenizer(list(texts), **truncation, **options)["input_ids"]
        ]

    def encode(texts: Sequence[str]) -> list[tuple[Ids, int]]:
        found = [(whole, len(whole)) for whole in ids(texts, truncation=False)]
        for index, (_, count) in enumerate(found):
            if count > max_length:
                # Not a slice: which special tokens come last is the tokenizer's to say.
                (cut,) = ids([texts[index]], truncation=True, max_length=max_length)
                found[index] = cut, count
        return found

    return encode
