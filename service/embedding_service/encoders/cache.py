"""What is made of a model once and kept beside it. A cache that can't be written, or was damaged, does no harm."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_SUMS = "sha256.json"
# A worker that was killed while it wrote leaves a part; no writing takes as long.
_ABANDONED_SECONDS = 3600

Key = Mapping[str, Any]


class Cache:
    """Folders and notes by what they depend on. Workers of other machines may use the same directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def folder(self, key: Key, write: Callable[[Path], None]) -> Path | None:
        """A folder with what ``write`` writes, made where there is none that is whole; ``None``: it can't be kept."""
        kept = self._directory / _digest(key)
        if _is_whole(kept):
            return kept
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self._directory, ignore_cleanup_errors=True) as made:
                new = Path(made) / "new"
                new.mkdir()
                write(new)
                (new / _SUMS).write_text(json.dumps(_sums(new)), encoding="utf-8")
                if kept.exists():
                    logger.warning("%s is damaged, and made anew", kept)
                    kept.rename(Path(made) / "damaged")
                new.rename(kept)
        except OSError as error:
            # Another worker may have been faster.
            if not _is_whole(kept):
                logger.warning("%s can't be kept, and is made again at the next start: %s", kept, error)
                return None
        return kept

    def recall(self, key: Key) -> Any:
        """What ``remember`` was given; ``None`` where nothing was, or it can't be read."""
        try:
            return json.loads(self._note(key).read_bytes())
        except (OSError, ValueError):
            return None

    def remember(self, key: Key, value: Any) -> None:
        """Keep a JSON value, where that can be done."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self._directory, ignore_cleanup_errors=True) as made:
                new = Path(made) / "note"
                new.write_text(json.dumps(value), encoding="utf-8")
                new.replace(self._note(key))
        except OSError as error:
            logger.warning("%s can't be kept, and is found out again at the next start: %s", self._note(key), error)

    def _note(self, key: Key) -> Path:
        return self._directory / f"{_digest(key)}.json"

    def _remove_abandoned(self) -> None:
        for part in self._directory.glob(".new-*"):
            if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(part, ignore_errors=True)


def _digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _sums(folder: Path) -> dict[str, str]:
    found = {}
    for name in sorted(set(os.listdir(folder)) - {_SUMS}):  # noqa: PTH208 - names, not paths
        with (folder / name).open("rb") as content:
            found[name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _SUMS).read_bytes()) == _sums(folder))
    except (OSError, ValueError):
        return False
