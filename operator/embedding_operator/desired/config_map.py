"""The ConfigMap with the workers' ``config.yaml``."""

from typing import Any, Literal

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_service.contract.settings import (
    HttpSettings,
    InputSettings,
    KafkaSettings,
    LoggingSettings,
    ModelSettings,
    OutputSettings,
    Settings,
)

_DEVICES: dict[str, Literal["auto", "cpu", "cuda"]] = {"Auto": "auto", "CPU": "cpu", "CUDA": "cuda"}


def worker_settings(pipeline: EmbeddingPipeline) -> Settings:
    """What a pipeline's workers are told.

    Raises pydantic's ``ValidationError`` where the pipeline breaks a rule that the API server checks by CEL, such as
    one topic used twice.
    """
    spec = pipeline.spec
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=spec.kafka.bootstrap_servers,
            input_topic=spec.input.topic,
            output_topic=spec.output.topic,
            dead_letter_topic=names.dead_letter_topic(pipeline),
            # Topics are made by whoever starts the workers, who knows what they should look like.
            create_dead_letter_topic=False,
            consumer_group=names.consumer_group(pipeline),
            start_from="latest" if spec.input.start_from == "Latest" else "earliest",
        ),
        input=InputSettings(text_field=spec.input.text_field, id_field=spec.input.id_field),
        output=OutputSettings(include_text=spec.output.include_text),
        model=ModelSettings(
            name=spec.model.name,
            revision=spec.model.revision,
            max_length=spec.model.max_length,
            device=_DEVICES[spec.model.device],
            prompt=spec.model.prompt,
            normalize=spec.model.normalize,
        ),
        http=HttpSettings(control="off"),
        logging=LoggingSettings(format="json"),
    )


def config_map(pipeline: EmbeddingPipeline) -> dict[str, Any]:
    """The Kubernetes object. Raises as ``worker_settings`` does."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.config_map(pipeline),
            "namespace": pipeline.metadata.namespace,
            "labels": names.labels(pipeline),
        },
        "data": {names.CONFIG_FILE: worker_settings(pipeline).to_yaml()},
    }
