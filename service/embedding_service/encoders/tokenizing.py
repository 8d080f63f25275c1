"""Texts to token ids, each once, and of a book only its beginning."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from embedding_service.encoders.protocol import Tokenized

# Nearly every text has more tokens than that.
_CHARACTERS_PER_HEAD_TOKEN = 8
# Tokenizers take a longer word as unknown: one token.
_LONGEST_WORD_TOKENS = 128


class Tokenizer:
    """A model's tokenizer with its prompt and its maximum length."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str | None, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt or ""
        self._max_length = max_length
        # Where the beginning has so many tokens, its last word, cut or not, is behind all that the model takes.
        self._enough = max_length + _LONGEST_WORD_TOKENS
        self._head_characters = _CHARACTERS_PER_HEAD_TOKEN * self._enough

    def __call__(self, texts: Sequence[str]) -> list[Tokenized]:
        """Each text in tokens, cut at the maximum length."""
        parts = [text[: self._head_characters] for text in texts]
        ids = self._ids(parts)
        for index, text in enumerate(texts):
            # Rare: a long text whose beginning has few tokens, as blanks have.
            if len(text) > self._head_characters and len(ids[index]) < self._enough:
                parts[index] = text
                ids[index] = self._ids([text])[0]
        long = [index for index, tokens in enumerate(ids) if len(tokens) > self._max_length]
        if long:
            # Not a slice: which special tokens come last is the tokenizer's to say.
            cut = self._ids([parts[index] for index in long], truncation=True, max_length=self._max_length)
            for index, tokens in zip(long, cut, strict=True):
                ids[index] = tokens
        truncated = frozenset(long)
        return [
            Tokenized(part, tokens, len(tokens), index in truncated)
            for index, (part, tokens) in enumerate(zip(parts, ids, strict=True))
        ]

    def _ids(self, texts: Sequence[str], *, truncation: bool = False, max_length: int | None = None) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(
            [self._prompt + text for text in texts],
            truncation=truncation,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return ids
