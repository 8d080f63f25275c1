"""Which records the lines of an input become, and where the lines come from."""

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest

from embedding_operator.api import Input
from embedding_operator.local import sources
from embedding_operator.local.docstrings import docstrings
from embedding_operator.local.errors import Interrupted, LocalError
from embedding_operator.local.stop import Stop
from embedding_operator.local.texts import LineTexts, Text, is_json_lines, limited, query_texts, record

FIELDS = Input(topic="in")


class SecondLook(Stop):
    """Somebody asks the run to end between the first and the second look."""

    looks = 0

    def check(self) -> None:
        self.looks += 1
        self.requested = self.looks > 1
        super().check()


FORMATS = {
    "a suffix of JSON Lines decides, whatever the lines are": ("texts.jsonl", b"plain", True),
    "so does that of newline-delimited JSON": ("texts.ndjson", b"plain", True),
    "so does that of JSON, in any case of letters": ("texts.JSON", b"plain", True),
    "without such a suffix a first line that is an object means JSON Lines": ("texts", b'{"text": "a"}', True),
    "and so it does on standard input": ("-", b'{"text": "a"}', True),
    "a first line that is another JSON value is a text": ("texts.txt", b'"quoted"', False),
    "a number is a text": ("texts.txt", b"42", False),
    "a brace that opens no object is a text": ("texts.txt", b"{braces} in a text", False),
    "bytes that are no UTF-8 are a text": ("texts.txt", b"\xff\xfe", False),
}


@pytest.mark.parametrize(("name", "line", "expected"), FORMATS.values(), ids=FORMATS.keys())
def test_format(name: str, line: bytes, expected: bool) -> None:
    assert is_json_lines(name, line) is expected


def texts(lines: Iterable[bytes | None], name: str = "texts.txt", fields: Input = FIELDS) -> list[Text | None]:
    return list(LineTexts(lines, name, fields, lambda: 12.5))


def test_a_line_of_text_becomes_a_record_with_id_text_timestamp_and_source() -> None:
    (text,) = texts([b"hello"])
    assert text is not None
    assert json.loads(text.value) == {"id": "line-1", "text": "hello", "timestamp": 12.5, "source": "local"}


def test_a_record_has_the_fields_that_the_pipeline_reads() -> None:
    (text,) = texts([b"hello"], fields=Input.model_validate({"topic": "in", "textField": "body", "idField": "key"}))
    assert text is not None
    assert json.loads(text.value) == {"key": "line-1", "body": "hello", "timestamp": 12.5, "source": "local"}


def test_a_line_of_json_stays_as_it_is_to_the_byte() -> None:
    lines = [b'{"text" :  "a"}\r', b"not json", b"\xff\xfe"]
    assert [text.value for text in texts(lines, "texts.jsonl") if text] == lines


def test_blank_lines_are_left_out_and_counted_and_the_others_keep_their_numbers() -> None:
    lines = LineTexts([b"", b"  \r", b"first", b"\t", b"second"], "texts.txt", FIELDS, lambda: 0.0)
    assert [text.label for text in lines if text] == ["line-3", "line-5"]
    assert lines.blank == 3


def test_a_line_end_of_windows_is_no_part_of_a_text() -> None:
    (text,) = texts([b"hello\r"])
    assert text is not None
    assert json.loads(text.value)["text"] == "hello"


def test_bytes_that_are_no_utf8_reach_the_worker_as_they_are() -> None:
    (text,) = texts([b"caf\xe9 closed"])
    assert text is not None
    assert b'"text": "caf\xe9 closed"' in text.value


def test_what_has_not_arrived_yet_is_passed_on() -> None:
    arrived = texts([None, b"one", None, b"two"])
    assert [text and text.label for text in arrived] == [None, "line-1", None, "line-2"]


def test_a_limit_counts_texts_and_not_waits() -> None:
    arriving = limited(iter([None, Text("a", b""), None, Text("b", b""), Text("c", b"")]), 2)
    assert [text and text.label for text in arriving] == [None, "a", None, "b"]


def test_a_limit_of_none_takes_all() -> None:
    assert len(list(limited(iter([Text("a", b"")] * 3), None))) == 3


def test_a_limit_of_nothing_takes_nothing() -> None:
    assert list(limited(iter([Text("a", b"")]), 0)) == []


def test_queries_are_records_like_any_other_that_remember_what_was_asked() -> None:
    (query,) = query_texts(["how?"], FIELDS, lambda: 1.0)
    assert query == Text("query-1", record(FIELDS, "query-1", "how?", 1.0), query="how?")


def test_lines_of_a_file_are_split_at_newlines_alone(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_bytes("one\ntwo\u2028still two\x0bstill two\n\nlast, without an end".encode())
    with path.open("rb") as file:
        assert list(sources.lines(file)) == [
            b"one",
            "two\u2028still two\x0bstill two".encode(),
            b"",
            b"last, without an end",
        ]


def test_lines_that_are_longer_than_a_read_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    long = b"x" * 300_000
    path.write_bytes(long + b"\n" + long)
    with path.open("rb") as file:
        assert list(sources.lines(file)) == [long, long]


def test_a_pipe_that_is_silent_holds_nothing_up() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb", buffering=0) as pipe:
        lines = sources.lines(file)
        assert next(lines) is None
        pipe.write(b"one\ntw")
        assert next(lines) == b"one"
        assert next(lines) is None
        pipe.write(b"o\n")
        assert next(lines) == b"two"


def counted(path: Path, limit: int | None = None, stop: Stop | None = None) -> int | None:
    with path.open("rb") as file:
        return sources.count_lines(file, limit, stop or Stop())


def test_counting_lines_leaves_the_file_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_bytes(b"one\n\n  \ntwo\nthree")
    with path.open("rb") as file:
        assert sources.count_lines(file, None, Stop()) == 3
        assert len(list(sources.lines(file))) == 5


COUNTED = {
    "nothing": (b"", 0),
    "one without an end": (b"one", 1),
    "one with an end": (b"one\n", 1),
    "blanks as none": (b"\n \n\t\r\n", 0),
    "long ones": (b"x" * 300_000 + b"\n" + b"y" * 300_000, 2),
    "one that begins with many blanks": (b" " * 300_000 + b"x\n", 1),
    "one that is many blanks as none": (b" " * 300_000 + b"\none", 1),
}


@pytest.mark.parametrize(("content", "expected"), COUNTED.values(), ids=COUNTED.keys())
def test_counting_lines_counts(content: bytes, expected: int, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_bytes(content)
    assert counted(path) == expected


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_no_more_lines_are_counted_than_are_fed(limit: int, expected: int, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_bytes(b"one\ntwo\n")
    assert counted(path, limit) == expected


def test_a_request_to_end_ends_the_counting_of_a_large_file(tmp_path: Path) -> None:
    path, stop = tmp_path / "texts", SecondLook()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Interrupted):
        counted(path, stop=stop)
    assert stop.looks == 2


def test_the_lines_of_a_pipe_are_not_counted() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb"):
        assert sources.count_lines(file, None, Stop()) is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with ExitStack() as stack, pytest.raises(LocalError, match=f"^--input {missing}: No such file or directory$"):
        sources.open_input(missing, stack)


def test_docstrings_are_many_and_each_is_there_once() -> None:
    found = list(islice(docstrings(), 2_000))
    assert len(found) == len({docstring.text for docstring in found}) == 2_000
    assert all(len(docstring.text.split()) >= 5 for docstring in found)
    assert {"list.sort", "sorted", "json.loads"} <= {docstring.name for docstring in found}


def test_docstrings_come_in_the_same_order_each_time() -> None:
    assert list(islice(docstrings(), 500)) == list(islice(docstrings(), 500))
