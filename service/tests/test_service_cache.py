"""What is made of a model once and kept beside it, while several workers start, run and end."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from embedding_service.encoders.cache import Cache, Key

MODEL = {"model": 1}

HOLD = """
import json
import sys
from pathlib import Path
from embedding_service.encoders.cache import Cache
write = lambda folder: (folder / "file").write_text("whole")
print(Cache(Path(sys.argv[1])).folder({"model": 1}, json.loads(sys.argv[2]), write), flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another(directory: Path, versions: Key) -> Iterator[Path]:
    """A folder of ``MODEL`` that another process has made, and has until the end of the block."""
    command = [sys.executable, "-c", HOLD, str(directory), json.dumps(versions)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        try:
            yield Path(other.stdout.readline().strip())
        finally:
            other.communicate()


def writes(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "file").write_text(content)

    return write


def never(_folder: Path) -> None:
    raise AssertionError("made a second time")


def test_what_is_kept_is_made_once_for_each_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "not" / "yet")
    first = cache.folder({"model": 1}, {}, writes("one"))
    assert first is not None
    assert (first / "file").read_text() == "one"
    assert cache.folder({"model": 1}, {}, never) == first
    assert cache.folder({"model": 2}, {}, writes("two")) != first
    assert not list((tmp_path / "not" / "yet").glob(".new-*"))


def test_a_cache_that_cannot_be_written_keeps_nothing_and_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "below")
    assert cache.folder({}, {}, writes("any")) is None
    cache.remember({}, 1.0)
    assert cache.recall({}) is None


def test_a_disk_that_is_full_keeps_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        (folder / "file").write_text("a part")
        raise OSError(28, "No space left on device")

    assert Cache(tmp_path).folder({}, {}, full) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "changed", "lost", "without sums", "sums lost"])
def test_what_was_damaged_is_made_anew_once_no_process_has_it(tmp_path: Path, damage: str) -> None:
    with held_by_another(tmp_path, {"openvino": 1}) as kept:
        match damage:
            case "cut":
                os.truncate(kept / "file", 2)
            case "changed":
                (kept / "file").write_text("WHOLE")
            case "lost":
                (kept / "file").unlink()
            case "without sums":
                (kept / "sha256.json").write_text("{")
            case _:
                (kept / "sha256.json").unlink()
    assert Cache(tmp_path).folder(MODEL, {"openvino": 1}, writes("whole")) == kept
    assert (kept / "file").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [kept]


def test_what_looks_damaged_stays_while_a_process_has_it(tmp_path: Path) -> None:
    with held_by_another(tmp_path, {"openvino": 1}) as kept:
        theirs = kept.stat()
        (kept / "file").write_text("WHOLE")
        assert Cache(tmp_path).folder(MODEL, {"openvino": 1}, writes("ours")) is None
        assert os.path.samestat(kept.stat(), theirs)
        assert (kept / "file").read_text() == "WHOLE"
        assert list(tmp_path.iterdir()) == [kept]


def test_of_two_workers_that_make_the_same_at_once_both_have_what_the_faster_made(tmp_path: Path) -> None:
    faster: list[os.stat_result] = []

    def slow(folder: Path) -> None:
        theirs = Cache(tmp_path).folder(MODEL, {}, writes("the faster's"))
        assert theirs is not None
        faster.append(theirs.stat())
        writes("the slower's")(folder)

    kept = Cache(tmp_path).folder(MODEL, {}, slow)
    assert kept is not None
    assert os.path.samestat(kept.stat(), faster[0])
    assert (kept / "file").read_text() == "the faster's"
    assert list(tmp_path.iterdir()) == [kept]


def test_what_other_versions_have_made_of_a_model_goes_once_no_process_has_it(tmp_path: Path) -> None:
    another_model = Cache(tmp_path).folder({"model": 2}, {"openvino": 1}, writes("another"))
    with held_by_another(tmp_path, {"openvino": 1}) as theirs:
        ours = Cache(tmp_path).folder(MODEL, {"openvino": 2}, writes("new"))
        assert set(tmp_path.iterdir()) == {another_model, theirs, ours}
    assert Cache(tmp_path).folder(MODEL, {"openvino": 2}, never) == ours
    assert set(tmp_path.iterdir()) == {another_model, ours}


def test_what_was_made_is_held_from_the_moment_that_others_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def then_another_starts(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        renamed = rename(path, target)
        assert Cache(tmp_path).folder(MODEL, {"openvino": 2}, writes("another's")) is not None
        return renamed

    monkeypatch.setattr(Path, "rename", then_another_starts)
    kept = Cache(tmp_path).folder(MODEL, {"openvino": 1}, writes("ours"))
    assert kept is not None
    assert (kept / "file").read_text() == "ours"


def before_it_is_locked(monkeypatch: pytest.MonkeyPatch, folder: Path, act: Callable[[], None]) -> None:
    """Let ``act`` happen between the opening of the folder's lock and the lock."""
    lock = fcntl.flock

    def late(file: int | IO[bytes], how: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if Path(f"/proc/self/fd/{descriptor}").readlink().parent == folder:
            monkeypatch.undo()
            act()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)


def test_what_another_worker_replaces_just_before_it_is_taken_is_taken_as_it_then_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Path:
        with held_by_another(tmp_path, {"openvino": 1}) as made:
            return made

    def replace() -> None:
        shutil.rmtree(kept)
        make()

    kept = make()
    before_it_is_locked(monkeypatch, kept, replace)
    assert Cache(tmp_path).folder(MODEL, {"openvino": 1}, writes("ours")) == kept
    assert Cache(tmp_path).folder(MODEL, {"openvino": 2}, writes("another's")) is not None
    assert (kept / "file").read_text() == "whole"


def test_what_another_worker_makes_just_before_its_predecessor_is_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        shutil.rmtree(kept)
        assert Cache(tmp_path).folder(MODEL, {"openvino": 1}, writes("theirs")) == kept

    with held_by_another(tmp_path, {"openvino": 1}) as kept:
        pass
    before_it_is_locked(monkeypatch, kept, replace)
    assert Cache(tmp_path).folder(MODEL, {"openvino": 2}, writes("ours")) is not None
    assert (kept / "file").read_text() == "theirs"


def test_on_a_volume_without_locks_folders_are_kept_and_none_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    first = Cache(tmp_path).folder(MODEL, {"openvino": 1}, writes("first"))
    second = Cache(tmp_path).folder(MODEL, {"openvino": 2}, writes("second"))
    assert first is not None
    assert Cache(tmp_path).folder(MODEL, {"openvino": 1}, never) == first
    (first / "file").write_text("damaged")
    assert Cache(tmp_path).folder(MODEL, {"openvino": 1}, writes("anew")) is None
    assert set(tmp_path.iterdir()) == {first, second}


def test_scratch_of_a_killed_worker_goes_and_one_that_another_removes_first_does_no_harm(tmp_path: Path) -> None:
    abandoned = tmp_path / ".new-abandoned"
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    # Listed, and then nothing is there.
    gone = tmp_path / ".new-gone"
    gone.symlink_to("nowhere")
    kept = Cache(tmp_path).folder(MODEL, {}, writes("ours"))
    assert kept is not None
    assert set(tmp_path.iterdir()) == {kept, gone}


def test_what_is_remembered_goes_by_its_key_and_rubbish_is_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.remember({"cpu": ["a"]}, 0.5)
    assert cache.recall({"cpu": ["a"]}) == 0.5
    assert cache.recall({"cpu": ["b"]}) is None
    for note in tmp_path.glob("*.json"):
        note.write_text(json.dumps(0.5)[:1] + "{")
    assert cache.recall({"cpu": ["a"]}) is None
