"""A GPU computes by itself: copies there and back, and the model between them, are only begun here."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from embedding_service.encoders.protocol import Matrix

# The GPU always has a next batch, and the texts that wait there are few.
_BATCHES = 4


def settle_attention() -> None:
    """Have PyTorch compute attention with kernels that take any shape.

    cuDNN's, which it prefers on some GPUs, need 50 to 160 ms for each shape that they haven't seen; most are new.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


@dataclass(frozen=True, slots=True)
class OnDevice:
    """Vectors on their way back, in memory that the GPU writes to by itself. See ``Computation``."""

    vectors: torch.Tensor
    copied: torch.cuda.Event

    def done(self) -> bool:
        """See ``Computation``."""
        return bool(self.copied.query())  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def result(self) -> Matrix:
        """See ``Computation``."""
        self.copied.synchronize()
        found: Matrix = self.vectors.numpy()
        return found


class Transfers:
    """Copies between memory and one GPU that nobody waits for. Used by one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running: deque[OnDevice] = deque()

    def wait_for_room(self) -> None:
        """Until the GPU can take another batch."""
        if len(self._running) == _BATCHES:
            self._running.popleft().copied.synchronize()

    def there(self, features: dict[str, Any]) -> dict[str, Any]:
        """The features of one batch, on the GPU."""
        return {
            name: value.pin_memory().to(self._device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in features.items()
        }

    def back(self, vectors: torch.Tensor) -> OnDevice:
        """Float32 vectors, as soon as they are computed."""
        pinned = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        pinned.copy_(vectors, non_blocking=True)
        # Blocking: to spin would take a core from the tokenizer.
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        copied.record(torch.cuda.current_stream(self._device))
        self._running.append(OnDevice(pinned, copied))
        return self._running[-1]
