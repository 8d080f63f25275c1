"""Real texts that every machine has: the docstrings of the standard library and of the installed packages.

Modules are parsed and never imported; only what is built into the interpreter is asked for its docstrings.
"""

import ast
import builtins
import inspect
import itertools
import math
import sys
import sysconfig
import time
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_FEWEST_WORDS = 5
# What most programs use comes first, so that a short run has neighbours that an engineer can judge.
_FIRST = (
    "argparse",
    "asyncio",
    "bisect",
    "collections",
    "contextlib",
    "csv",
    "datetime",
    "_pydatetime",
    "email",
    "functools",
    "heapq",
    "http",
    "inspect",
    "json",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "re",
    "shutil",
    "socket",
    "statistics",
    "string",
    "subprocess",
    "tempfile",
    "textwrap",
    "threading",
    "unittest",
    "urllib",
    "zipfile",
)
_SKIPPED = frozenset({"__pycache__", "dist-packages", "idlelib", "lib2to3", "site-packages", "test", "tests"})
_BUILT_IN = (builtins, itertools, math, sys, time)

_Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Docstring(NamedTuple):
    """The dotted name of what is documented, and the text."""

    name: str
    text: str


def docstrings() -> Iterator[Docstring]:
    """Each docstring once, of at least five words, in an order that is the same at every call."""
    seen: set[str] = set()
    for docstring in itertools.chain(_built_in(), *map(_in_folder, _folders())):
        text = inspect.cleandoc(docstring.text)
        if text not in seen and len(text.split()) >= _FEWEST_WORDS:
            seen.add(text)
            yield Docstring(docstring.name, text)


def _built_in() -> Iterator[Docstring]:
    for module in _BUILT_IN:
        prefix = "" if module is builtins else f"{module.__name__}."
        for name, member in sorted(vars(module).items()):
            # An instance shows its class's docstring, and an alias that of its original.
            defined_here = inspect.isclass(member) or inspect.isroutine(member)
            if name.startswith("_") or not defined_here or member.__name__ != name:
                continue
            yield from _documented(prefix + name, member)
            methods = vars(member) if inspect.isclass(member) else {}
            for method in sorted(methods):
                if not method.startswith("_"):
                    yield from _documented(f"{prefix}{name}.{method}", methods[method])


def _documented(name: str, member: object) -> Iterator[Docstring]:
    text = getattr(member, "__doc__", None)
    if isinstance(text, str):
        yield Docstring(name, text)


def _folders() -> list[Path]:
    paths = sysconfig.get_paths()
    return [Path(path) for path in dict.fromkeys(paths[key] for key in ("stdlib", "purelib", "platlib"))]


def _in_folder(folder: Path) -> Iterator[Docstring]:
    for path in _modules(folder):
        # Not every installed file is Python of this version.
        try:
            yield from _in_module(path, _module_name(path.relative_to(folder)))
        except (SyntaxError, UnicodeDecodeError):
            continue


def _modules(folder: Path) -> Iterator[Path]:
    top = {path.stem: path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix == ".py"}
    first = [top[name] for name in _FIRST if name in top]
    for path in dict.fromkeys([*first, *top.values()]):
        if path.name not in _SKIPPED:
            yield from _python_files(path)


def _python_files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return (file for file in sorted(path.rglob("*.py")) if _SKIPPED.isdisjoint(file.relative_to(path).parts))


def _module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _in_module(path: Path, name: str) -> Iterator[Docstring]:
    with tokenize.open(path) as file, warnings.catch_warnings():
        # Old escapes in installed code are not this program's.
        warnings.simplefilter("ignore")
        tree = ast.parse(file.read())
    yield from _in_definition(tree, name)


def _in_definition(node: _Definition, name: str) -> Iterator[Docstring]:
    text = ast.get_docstring(node, clean=False)
    if text:
        yield Docstring(name, text)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from _in_definition(child, f"{name}.{child.name}")
