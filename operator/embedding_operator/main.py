"""The command line: ``embedding-operator run``, ``validate FILE…`` and ``local FILE``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from embedding_operator import console, crd
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.local.stop import EXIT_INTERRUPTED, signals
from embedding_operator.manifest import ManifestError, pipelines
from embedding_service.contract.settings import KafkaSettings

_STANDARD_INPUT = "-"
_EXIT_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with 0, 1 for what failed, 2 for wrong usage, or 130 where interrupted."""
    try:
        code = _run(arguments)
    except KeyboardInterrupt:
        # While a run goes on, `signals` heeds it; this is before and after.
        code = EXIT_INTERRUPTED
    except console.StandardOutputError as error:
        console.say(f"error: {error}")
        code = _EXIT_FAILED
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "run":
        # The clients of a cluster take a moment to load.
        from embedding_operator.run import run

        return run()
    if options.command == "validate":
        return _validate(options.files)
    if options.file == options.input == _STANDARD_INPUT:
        parser.error("the manifest and --input can't both come from standard input")
    return _local(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="embedding-operator", description="EmbeddingPipelines: text embeddings through Kafka."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    commands.add_parser("run", help="run the operator, in a pod or with a kubeconfig; settings come by environment")
    validate = commands.add_parser("validate", help="check manifests against the schema, without a cluster")
    validate.add_argument("files", nargs="+", metavar="FILE", help="a manifest in YAML, or - for standard input")
    _add_local(commands.add_parser("local", help="run a manifest on this machine, without a cluster or a broker"))
    return parser


def _add_local(local: argparse.ArgumentParser) -> None:
    local.add_argument("file", metavar="FILE", help="a manifest with one EmbeddingPipeline, or - for standard input")
    local.add_argument(
        "--input",
        metavar="FILE",
        help="texts: JSON Lines or one text a line, - for standard input (default: the docstrings of this machine)",
    )
    local.add_argument("--output", metavar="FILE", type=Path, help="write the output records there, as JSON Lines")
    local.add_argument(
        "--query",
        metavar="TEXT",
        action="append",
        default=[],
        help="embed this too and show the texts nearest to it; can be given several times",
    )
    local.add_argument("--limit", metavar="N", type=_count, help="feed at most N texts (default: 2000 docstrings)")
    local.add_argument(
        "--bootstrap-servers",
        metavar="HOST:PORT",
        type=_servers,
        help="use this Kafka cluster (default: a broker in memory; the manifest's own is never contacted)",
    )
    local.add_argument("--serve", action="store_true", help="keep running afterwards, with HTTP at --port")
    local.add_argument(
        "--port", metavar="N", type=_port, help="the worker's HTTP port (default: 5000 with --serve, else a free one)"
    )
    local.add_argument("--verbose", action="store_true", help="show the worker's log")


def _count(value: str) -> int:
    return _whole_number(value, 0, sys.maxsize, "a whole number, 0 or more")


def _port(value: str) -> int:
    return _whole_number(value, 1, 65535, "a port, 1 to 65535")


def _whole_number(value: str, least: int, most: int, expected: str) -> int:
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        raise argparse.ArgumentTypeError(f"{value!r}: expected {expected}")
    return int(value)


def _servers(value: str) -> str:
    try:
        KafkaSettings.model_validate({"bootstrap_servers": value})
    except ValidationError:
        raise argparse.ArgumentTypeError(f"{value!r}: expected HOST:PORT, or several with commas between") from None
    return value


def _validate(files: Sequence[str]) -> int:
    code = 0
    for file in files:
        for checked in _read(file):
            if isinstance(checked, ManifestError):
                code = _EXIT_FAILED
                _complain(file, checked)
            else:
                metadata = checked.metadata
                console.show(f"{file}: {checked.kind} {metadata.namespace}/{metadata.name}: valid against the schema")
    console.show(_not_checked())
    return code


def _local(options: argparse.Namespace) -> int:
    documents = _read(options.file)
    checked = documents[0]
    if len(documents) > 1:
        checked = ManifestError([f"{len(documents)} documents; a local run takes one"])
    if isinstance(checked, ManifestError):
        _complain(options.file, checked)
        return _EXIT_FAILED
    with signals() as stop:
        console.say(_not_checked())
        # Clients and numpy take a moment to load: Ctrl-C is heeded from here on.
        from embedding_operator.local.run import Options, run

        wanted = Options(
            input=options.input,
            output=options.output,
            queries=tuple(options.query),
            limit=options.limit,
            bootstrap_servers=options.bootstrap_servers,
            serve=options.serve,
            port=options.port,
            verbose=options.verbose,
        )
        return run(checked, wanted, stop)


def _read(file: str) -> list[EmbeddingPipeline | ManifestError]:
    """Each document of a file, checked; what is wrong with the file as a whole stands in place of them."""
    try:
        text = sys.stdin.read() if file == _STANDARD_INPUT else Path(file).read_text(encoding="utf-8")
        return pipelines(text)
    except ManifestError as error:
        return [error]
    except UnicodeDecodeError:
        return [ManifestError(["not UTF-8; expected a manifest in YAML"])]
    except OSError as error:
        return [ManifestError([f"{error.strerror}; expected a manifest in YAML"])]


def _complain(file: str, error: ManifestError) -> None:
    for problem in error.problems:
        console.say(f"{file}: {problem}")


def _not_checked() -> str:
    return f"not checked here: the {len(crd.cel_rules())} CEL rules of the resource, which the API server applies"
