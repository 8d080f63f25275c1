"""A local run from beginning to end: broker, worker, texts, report, and where asked for, serving until Ctrl-C."""

import time
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from embedding_operator import console, names
from embedding_operator.api import EmbeddingPipeline, Http, Tls
from embedding_operator.desired.config_map import config_map
from embedding_operator.local import broker, corpus
from embedding_operator.local.clients import kafka_clients
from embedding_operator.local.corpus import Corpus
from embedding_operator.local.errors import Interrupted, LocalError
from embedding_operator.local.exchange import Collector, Ending, Feeder, exchange
from embedding_operator.local.output import Output
from embedding_operator.local.progress import progress, say
from embedding_operator.local.report import Outcome, mismatch, report, serving
from embedding_operator.local.stop import EXIT_INTERRUPTED, Stop
from embedding_operator.local.tracker import RecordTracker, bounds
from embedding_operator.local.worker import HOST, Worker, free_port, require_free, running
from embedding_service.contract.problems import problems_of
from embedding_service.contract.settings import KafkaSettings, Settings, parse_settings
from embedding_service.contract.stats import ModelStats, State

EXIT_FAILED = 1

_STATES = {State.LOADING: "loading the model", State.CONNECTING: "connecting to the broker"}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for; ``input`` is a file's name or ``-``, unset the docstrings of this machine."""

    input: str | None = None
    output: Path | None = None
    queries: tuple[str, ...] = ()
    limit: int | None = None
    bootstrap_servers: str | None = None
    serve: bool = False
    port: int | None = None
    verbose: bool = False


def run(pipeline: EmbeddingPipeline, options: Options, stop: Stop) -> int:
    """Run a pipeline on this machine. Returns the exit code: 0, 1 where something failed, 130 where interrupted."""
    with ExitStack() as stack:
        try:
            return _Run(pipeline, options, stop, stack).run()
        except Interrupted:
            say("interrupted before the first text was fed")
            return EXIT_INTERRUPTED
        except LocalError as error:
            say(f"error: {error}")
            return EXIT_FAILED


class _Run:
    """One run. What it opens is closed by the stack, in the reverse order."""

    def __init__(self, pipeline: EmbeddingPipeline, options: Options, stop: Stop, stack: ExitStack) -> None:
        self._pipeline = pipeline
        self._options = options
        self._stop = stop
        self._stack = stack
        self._config = _config(pipeline)
        self._in_cluster = parse_settings(self._config, {})

    def run(self) -> int:
        """Everything in its order. Raises ``LocalError`` or ``Interrupted`` before the feeding and while serving."""
        port = self._port()
        output = self._output()
        texts = self._texts()
        environment = self._environment(self._broker(), port)
        settings = parse_settings(self._config, environment)
        directory = Path(self._stack.enter_context(TemporaryDirectory(prefix="embedding-local-")))
        worker = self._stack.enter_context(
            running(self._config, environment, port, directory, verbose=self._options.verbose)
        )
        model = _wait_until_ready(worker, self._stop)
        if self._wants_cuda() and model.device != "cuda":
            say(f"device: {model.device}, since this machine has no GPU for the manifest's CUDA")
        code = self._feed(settings, worker, model, texts, output)
        return self._serve(worker, settings) if self._options.serve and not code else code

    def _feed(self, settings: Settings, worker: Worker, model: ModelStats, texts: Corpus, output: Output | None) -> int:
        """Feed all, and report. Returns the exit code."""
        tracker = RecordTracker(bounds(model.dimension, in_memory=self._options.bootstrap_servers is None))
        collector = Collector(tracker, output)
        ending: Ending | LocalError
        with kafka_clients(settings.kafka, self._stop) as clients, progress(texts.total) as shown:
            feeder = Feeder(texts.texts, tracker, clients)
            try:
                with closing(output) if output else nullcontext():
                    ending = exchange(feeder, collector, clients, worker, shown, self._stop)
            except LocalError as error:
                ending = error
        if ending is not Ending.COMPLETE:
            worker.stop()
        if tracker.fed or not self._options.serve:
            console.show("\n" + report(self._outcome(settings, model, collector, texts, output)))
        match ending:
            case Ending.COMPLETE:
                return 0
            case Ending.INTERRUPTED:
                say("interrupted")
                return EXIT_INTERRUPTED
            case _:
                say(f"error: {mismatch(tracker) if ending is Ending.INCOMPLETE else ending}")
                return EXIT_FAILED

    def _outcome(
        self, settings: Settings, model: ModelStats, collector: Collector, texts: Corpus, output: Output | None
    ) -> Outcome:
        return Outcome(
            pipeline=f"{self._pipeline.metadata.namespace}/{self._pipeline.metadata.name}",
            broker=self._broker_line(",".join(settings.kafka.bootstrap_servers)),
            model=model,
            tracker=collector.tracker,
            examples=collector.vectors.examples(),
            vectors_cut=collector.vectors.cut,
            blank=texts.blank,
            written=(output.written, str(output.path)) if output else None,
        )

    def _serve(self, worker: Worker, settings: Settings) -> int:
        """Keep running until asked to end."""
        console.show("\n" + serving(settings))
        while not self._stop.requested:
            worker.check()
            time.sleep(Stop.TICK_SECONDS)
        return EXIT_INTERRUPTED

    def _port(self) -> int:
        """The port of the worker's HTTP: the one asked for, the configuration's for ``--serve``, else a free one."""
        port = self._options.port
        if port is None:
            if not self._options.serve:
                return free_port()
            port = self._in_cluster.http.port
        require_free(port)
        return port

    def _output(self) -> Output | None:
        path = self._options.output
        return None if path is None else self._stack.enter_context(closing(Output(path)))

    def _texts(self) -> Corpus:
        options, fields = self._options, self._pipeline.spec.input
        if options.input is not None:
            return corpus.from_lines(options.input, options.limit, options.queries, fields, self._stack, self._stop)
        say("texts: docstrings of the standard library and of the installed packages")
        return corpus.from_docstrings(options.limit, options.queries, fields, self._stop)

    def _broker(self) -> str:
        """The bootstrap servers of the broker, with its topics there."""
        given, kafka = self._options.bootstrap_servers, self._in_cluster.kafka
        if given is None:
            servers = self._stack.enter_context(broker.in_memory(broker.topics_of(kafka)))
            say(f"broker: {self._broker_line(servers)}")
            return servers
        say(f"broker: {self._broker_line(given)}")
        made = broker.prepare(given, kafka, self._stop)
        say(f"topics: made {', '.join(made)}" if made else "topics: all are there")
        return given

    def _broker_line(self, servers: str) -> str:
        own = ", ".join(self._pipeline.spec.kafka.bootstrap_servers)
        if self._options.bootstrap_servers is None:
            return f"in memory, at {servers}; the manifest's {own} is not contacted"
        return f"{servers}, in place of the manifest's {own}"

    def _wants_cuda(self) -> bool:
        return self._in_cluster.model.device == "cuda"

    def _environment(self, servers: str, port: int) -> dict[str, str]:
        """What differs from a worker in a cluster, and nothing else does."""
        environment = {
            "EMBEDDING_KAFKA__BOOTSTRAP_SERVERS": servers,
            "EMBEDDING_HTTP__HOST": HOST,
            "EMBEDDING_HTTP__PORT": str(port),
            "EMBEDDING_LOGGING__FORMAT": "console",
        }
        if self._wants_cuda():
            # A cluster's workers have their GPUs by the same manifest; here nobody could give them one.
            environment["EMBEDDING_MODEL__DEVICE"] = "auto"
        # Only this machine reaches it, and its user may well start and stop their own worker.
        return environment | ({"EMBEDDING_HTTP__CONTROL": "open"} if self._options.serve else {})


def _config(pipeline: EmbeddingPipeline) -> str:
    """The worker's ``config.yaml``, as the ConfigMap of a cluster holds it."""
    try:
        return str(config_map(_without_secrets(pipeline))["data"][names.CONFIG_FILE])
    except ValidationError as error:
        # The schema leaves nothing but the rules between topics, which belong to this section.
        found = problems_of(error, KafkaSettings, frozenset())
        raise LocalError("; ".join(f"{problem.key.lstrip('.')}: {problem.text}" for problem in found)) from None


def _without_secrets(pipeline: EmbeddingPipeline) -> EmbeddingPipeline:
    """The same pipeline for a broker and a caller on this machine, where no cluster holds its Secrets."""
    spec = pipeline.spec
    kafka = spec.kafka.model_copy(update={"tls": Tls(), "sasl": None})
    return pipeline.model_copy(update={"spec": spec.model_copy(update={"kafka": kafka, "http": Http()})})


def _wait_until_ready(worker: Worker, stop: Stop) -> ModelStats:
    shown: State | None = None
    while True:
        worker.check()
        stats = worker.stats()
        if stats is not None and stats.state in _STATES and stats.state is not shown:
            shown = stats.state
            say(f"worker: {_STATES[shown]}")
        if stats is not None and stats.model is not None and worker.ready():
            return stats.model
        stop.tick()
