"""What is made of a model once and kept beside it. A cache that can't be written, or was damaged, does no harm."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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

    def folder(self, key: Key, versions: Key, write: Callable[[Path], None]) -> Path | None:
        """A folder with what ``write`` writes, made where there is none that is whole; ``None``: it can't be kept.

        It stays for as long as this process lives. What other versions have made of the same key is removed, once no
        process has it.
        """
        kept = self._directory / f"{_digest(key)}-{_digest(versions)}"
        try:
            if not _take(kept):
                self._make(kept, write)
        except OSError as error:
            # Another worker may have been faster.
            if not _take(kept):
                logger.warning("%s can't be kept, and is made again at the next start: %s", kept, error)
                return None
        self._remove_others(kept)
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
            with self._scratch() as made:
                new = Path(made) / "note"
                new.write_text(json.dumps(value), encoding="utf-8")
                new.replace(self._note(key))
        except OSError as error:
            logger.warning("%s can't be kept, and is found out again at the next start: %s", self._note(key), error)

    def _note(self, key: Key) -> Path:
        return self._directory / f"{_digest(key)}.json"

    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix=".new-", dir=self._directory, ignore_cleanup_errors=True)

    def _make(self, kept: Path, write: Callable[[Path], None]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        with self._scratch() as made:
            new = Path(made) / "new"
            new.mkdir()
            write(new)
            # Another worker may have been faster, and read from what it made.
            if _take(kept):
                return
            (new / _SUMS).write_text(json.dumps(_sums(new)), encoding="utf-8")
            lock = _hold(new)
            try:
                _replace(kept, new, Path(made) / "damaged")
            except OSError:
                os.close(lock)
                raise

    def _remove_abandoned(self) -> None:
        for part in self._directory.glob(".new-*"):
            # Another worker may have just removed it.
            with suppress(OSError):
                if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    shutil.rmtree(part, ignore_errors=True)

    def _remove_others(self, kept: Path) -> None:
        key, _, _ = kept.name.partition("-")
        for other in set(self._directory.glob(f"{key}-*")) - {kept}:
            # NFS removes no folder with an open file: the lock's is closed before the scratch goes.
            with suppress(OSError), self._scratch() as gone:
                with _alone(other):
                    other.rename(Path(gone) / "other")
                logger.info("%s was made by other versions and has no user: removed", other)


def _digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _sums(folder: Path) -> dict[str, str]:
    found = {}
    for name in sorted(set(os.listdir(folder)) - {_SUMS}):  # noqa: PTH208 - names, not paths
        with (folder / name).open("rb") as content:
            found[name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def _replace(kept: Path, new: Path, damaged: Path) -> None:
    """Raises ``OSError`` where somebody has what is there."""
    with suppress(FileNotFoundError), _alone(kept):
        kept.rename(damaged)
        logger.warning("%s is damaged, and made anew", kept)
    new.rename(kept)


def _take(folder: Path) -> bool:
    """Hold it, if it is whole."""
    try:
        lock = _hold(folder)
    except OSError:
        return False
    if _is_at(folder, lock) and _is_whole(folder):
        return True
    os.close(lock)
    return False


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _SUMS).read_bytes()) == _sums(folder))
    except (OSError, ValueError):
        return False


def _hold(folder: Path) -> int:
    """Keep others from removing it. The lock ends with the process: weights are read where they lie, at any time."""
    lock = os.open(folder / _SUMS, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        # It is being removed.
        os.close(lock)
        raise
    except OSError:
        # A volume without locks. Nothing is removed there.
        logger.debug("%s can't be locked", folder)
    return lock


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody has it, and nobody takes it meanwhile. Raises ``OSError`` where that isn't so, or can't be known."""
    # For writing, or NFS gives no such lock; made where damage has taken it.
    with (folder / _SUMS).open("ab") as sums:
        fcntl.flock(sums, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(folder, sums.fileno()):
            raise BlockingIOError(f"{folder} was just replaced")
        yield


def _is_at(folder: Path, lock: int) -> bool:
    """Between the opening and the lock, another worker may have put another folder there."""
    try:
        return os.path.samestat(os.fstat(lock), (folder / _SUMS).stat())
    except OSError:
        return False
