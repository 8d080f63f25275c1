"""Whether another way to compute a model gives its vectors: a few dozen texts of all lengths, against the reference."""

from collections.abc import Iterator

import numpy as np

from embedding_service.encoders.protocol import Encoder, Matrix, Tokenized
from embedding_service.encoders.pytorch import least_cosine

# A model for books would take minutes at its full length; what differs shows much earlier.
_LONGEST = 512
_EVERY_LENGTH_TO = 16
_GROWTH = 1.25
_BATCH = 8
_TEXT = (
    "The harbour master wrote down each ship at dawn: its name, what it carried, who had paid, and 3 or 4 words on the "
    "weather. Of 1,208 entries only one is crossed out. Nobody knows why! Later readers guessed at a storm, at fraud, "
    "even at love; def entry(ship, *, paid=True): return f'{ship}: {paid}' is how a clerk would do it today. Prices "
    "fell by 12.5% in 1893 (see page 7), grain rotted in the sheds, and the price of rope at https://example.org "
    "tripled. Le port dort sous la pluie, les mouettes crient; das Meer schweigt. 港は静かだった。 "
    "Whoever asks what a vector means should first read what the text says, slowly, with the index closed."
)


def texts(max_length: int) -> list[str]:
    """Of one word to more than the model takes, each beginning elsewhere."""
    longest = min(max_length, _LONGEST)
    counts = list(range(1, min(_EVERY_LENGTH_TO, longest) + 1))
    while counts[-1] < longest:
        counts.append(int(counts[-1] * _GROWTH) + 1)
    words = _TEXT.split()
    return [
        " ".join(words[(7 * start + number) % len(words)] for number in range(count))
        for start, count in enumerate(counts)
    ]


def vectors(encoder: Encoder) -> Matrix:
    """Of all texts in batches of like lengths as the worker's, and of each alone; cut beyond the purpose."""
    tokenized = [_cut(text) for text in encoder.tokenize(texts(encoder.max_length))]
    running = [encoder.submit(batch) for batch in _batches(tokenized)]
    found = [computation.result() for computation in running]
    # What comes alone may be computed otherwise than what comes beside others, and be wrong at other lengths.
    return np.concatenate([*found, *(encoder.submit([text]).result() for text in tokenized)])


def cosine(encoder: Encoder, reference: Matrix) -> float:
    """The least of all texts."""
    return least_cosine(vectors(encoder), reference)


def _cut(text: Tokenized) -> Tokenized:
    if text.ids is None or text.length <= _LONGEST:
        return text
    return Tokenized(text.text, text.ids[:_LONGEST], _LONGEST, truncated=True)


def _batches(tokenized: list[Tokenized]) -> Iterator[list[Tokenized]]:
    for start in range(0, len(tokenized), _BATCH):
        yield tokenized[start : start + _BATCH]
