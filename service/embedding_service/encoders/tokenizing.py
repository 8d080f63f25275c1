"""Texts to token ids, each once, and of a book only its beginning."""

import sys
from collections.abc import Callable, Sequence

import numpy as np
import tokenizers
from transformers import PreTrainedTokenizerBase

from embedding_service.encoders.protocol import Ids, Tokenized

# Nearly every text has more tokens than that.
_CHARACTERS_PER_HEAD_TOKEN = 8
# Tokenizers take a longer word as unknown: one token.
_LONGEST_WORD_TOKENS = 128

_Encode = Callable[[Sequence[str]], list[Ids]]


class Tokenizer:
    """A model's tokenizer with its prompt and its maximum length. Used by one thread at a time."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str | None, max_length: int) -> None:
        self._whole, self._cut = _in_rust(tokenizer, max_length) or _in_python(tokenizer, max_length)
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
        ids = self._ids(self._whole, parts)
        for index, text in enumerate(texts):
            # Rare: a long text whose beginning has few tokens, as blanks have.
            if len(text) > self._head_characters and len(ids[index]) < self._enough:
                parts[index] = text
                ids[index] = self._ids(self._whole, [text])[0]
        long = [index for index, tokens in enumerate(ids) if len(tokens) > self._max_length]
        # Not a slice: which special tokens come last is the tokenizer's to say.
        cut = self._ids(self._cut, [parts[index] for index in long])
        for index, tokens in zip(long, cut, strict=True):
            ids[index] = tokens
        truncated = frozenset(long)
        return [
            Tokenized(part, tokens, len(tokens), index in truncated)
            for index, (part, tokens) in enumerate(zip(parts, ids, strict=True))
        ]

    def _ids(self, encode: _Encode, texts: Sequence[str]) -> list[Ids]:
        return encode([self._prompt + text for text in texts]) if texts else []


def _in_rust(tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[_Encode, _Encode] | None:
    """Whole and cut, without what transformers makes besides; of a tokenizer that isn't Python's."""
    if not tokenizer.is_fast:
        return None
    # Copies: transformers sets truncation and padding of its own one at each call.
    whole, cut = (tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()) for _ in range(2))
    whole.no_truncation()
    cut.enable_truncation(max_length, direction=tokenizer.truncation_side)
    for one in (whole, cut):
        one.no_padding()

    def encode(one: tokenizers.Tokenizer) -> _Encode:
        return lambda texts: [np.array(found.ids, dtype=np.int32) for found in one.encode_batch_fast(list(texts))]

    return encode(whole), encode(cut)


def _in_python(tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[_Encode, _Encode]:
    def encode(*, truncation: bool) -> _Encode:
        options = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False, "verbose": False}

        def ids(texts: Sequence[str]) -> list[Ids]:
            length = max_length if truncation else None
            found = tokenizer(list(texts), truncation=truncation, max_length=length, **options)["input_ids"]
            return [np.array(tokens, dtype=np.int32) for tokens in found]

        return ids

    return encode(truncation=False), encode(truncation=True)
