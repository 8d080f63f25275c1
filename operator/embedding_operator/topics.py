"""The topics of a pipeline: what they should be, and what is to be done at the brokers; pure.

Only what the operator created is ever changed, by Kafka's id of the topic: one that somebody deleted and made again is
somebody else's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline, TopicTemplate
from embedding_operator.observed import Kafka, Topic
from embedding_service.contract.topics import dead_letter_max_bytes

_MAX_BYTES = "max.message.bytes"


class Role(StrEnum):
    """What a topic is to a pipeline."""

    INPUT = "Input"
    OUTPUT = "Output"
    DEAD_LETTER = "DeadLetter"


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to be made; what is unset is left to the brokers."""

    name: str
    role: Role
    partitions: int | None
    replication_factor: int | None
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicChanges:
    """What is to be done at the brokers."""

    create: tuple[NewTopic, ...] = ()
    # Name and the new number of partitions.
    grow: tuple[tuple[str, int], ...] = ()
    # Name and the configuration that differs.
    alter: tuple[tuple[str, Mapping[str, str]], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.create or self.grow or self.alter)


def topics(pipeline: EmbeddingPipeline) -> dict[Role, str]:
    """The names of a pipeline's topics."""
    return {
        Role.INPUT: pipeline.spec.input.topic,
        Role.OUTPUT: pipeline.spec.output.topic,
        Role.DEAD_LETTER: names.dead_letter_topic(pipeline),
    }


def created_ids(pipeline: EmbeddingPipeline) -> frozenset[str]:
    """Kafka's ids of the topics that the operator created for this pipeline, by its status."""
    return frozenset(entry["id"] for entry in (pipeline.status or {}).get("topics", ()) if entry.get("created"))


def missing(pipeline: EmbeddingPipeline, kafka: Kafka) -> list[str]:
    """The topics that the brokers don't have."""
    return [name for name in topics(pipeline).values() if name not in kafka.topics]


def changes(pipeline: EmbeddingPipeline, kafka: Kafka, created: frozenset[str]) -> TopicChanges:
    """What is to be done; ``created`` are the ids of the topics that are ours.

    The input topic comes first and alone, since the others follow what it turns out to be.
    """
    if not pipeline.spec.topics.manage:
        return TopicChanges()
    source = kafka.topics.get(pipeline.spec.input.topic)
    if source is None:
        return TopicChanges(create=(_new(pipeline, Role.INPUT, None),))
    wanted = [_new(pipeline, role, source) for role in Role]
    ours = [(new, kafka.topics[new.name]) for new in wanted if _is_ours(new, kafka, created)]
    return TopicChanges(
        create=tuple(new for new in wanted if new.name not in kafka.topics),
        grow=tuple(
            (new.name, new.partitions)
            for new, found in ours
            if new.partitions is not None and found.partitions < new.partitions
        ),
        alter=tuple((new.name, differing) for new, found in ours if (differing := _differing(new, found))),
    )


def deletable(pipeline: EmbeddingPipeline, kafka: Kafka, created: frozenset[str]) -> list[str]:
    """The topics that go with a pipeline whose policy is Delete: its outputs where they are ours, never its input."""
    outputs = [name for role, name in topics(pipeline).items() if role is not Role.INPUT]
    return [name for name in outputs if name in kafka.topics and kafka.topics[name].id in created]


def _is_ours(new: NewTopic, kafka: Kafka, created: frozenset[str]) -> bool:
    return new.name in kafka.topics and kafka.topics[new.name].id in created


def _differing(new: NewTopic, found: Topic) -> dict[str, str]:
    # Where this user may not ask for it, nobody knows whether it differs.
    wanted = new.config if found.config else {}
    return {key: value for key, value in wanted.items() if not _same(value, found.config.get(key))}


def _same(asked: str, found: str | None) -> bool:
    return found is not None and (asked == found or _as_stored(asked) == _as_stored(found))


def _as_stored(value: str) -> str | Decimal:
    """A value in the form that brokers store: lists without blanks, true and false in small letters, plain numbers."""
    text = ",".join(part.strip() for part in value.split(","))
    if text.lower() in ("true", "false"):
        return text.lower()
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _template(pipeline: EmbeddingPipeline, role: Role) -> TopicTemplate:
    sections = {
        Role.INPUT: pipeline.spec.input.create,
        Role.OUTPUT: pipeline.spec.output.create,
        Role.DEAD_LETTER: pipeline.spec.dead_letter.create,
    }
    return sections[role] or TopicTemplate()


def _new(pipeline: EmbeddingPipeline, role: Role, source: Topic | None) -> NewTopic:
    template = _template(pipeline, role)
    config = dict(template.config or {})
    if role is Role.DEAD_LETTER and source is not None and _MAX_BYTES in source.config:
        config.setdefault(_MAX_BYTES, str(dead_letter_max_bytes(int(source.config[_MAX_BYTES]))))
    partitions = template.partitions
    if partitions is None and source is not None and role is not Role.INPUT:
        partitions = source.partitions
    return NewTopic(topics(pipeline)[role], role, partitions, template.replication_factor, config)
