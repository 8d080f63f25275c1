"""The ConfigMap with the workers' ``config.yaml``."""

from typing import Literal

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.metadata import Object, metadata
from embedding_service.contract.outputs import Encoding
from embedding_service.contract.settings import (
    FROM_ENVIRONMENT,
    HttpSettings,
    InputSettings,
    KafkaSettings,
    LoggingSettings,
    ModelSettings,
    OutputSettings,
    Settings,
)

_DEVICES: dict[str, Literal["auto", "cpu", "cuda"]] = {"Auto": "auto", "CPU": "cpu", "CUDA": "cuda"}
_PRECISIONS: dict[str, Literal["auto", "float32", "float16", "bfloat16"]] = {
    "Auto": "auto",
    "Float32": "float32",
    "Float16": "float16",
    "BFloat16": "bfloat16",
}
_ENCODINGS: dict[str, Encoding] = {"JSON": "json", "Base64": "base64", "Binary": "binary"}
_CHANGE_POLICIES: dict[str, Literal["require_new_output_topic", "allow_mixed"]] = {
    "RequireNewOutputTopic": "require_new_output_topic",
    "AllowMixed": "allow_mixed",
}


def worker_settings(pipeline: EmbeddingPipeline) -> Settings:
    """What a pipeline's workers are told.

    Raises pydantic's ``ValidationError`` where the pipeline breaks a rule that the API server checks by CEL, such as
    one topic used twice.
    """
    spec = pipeline.spec
    return Settings(
        kafka=_kafka(pipeline),
        input=InputSettings(text_field=spec.input.text_field, id_field=spec.input.id_field),
        output=OutputSettings(
            encoding=_ENCODINGS[spec.output.encoding],
            include_text=spec.output.include_text,
        ),
        model=ModelSettings(
            name=spec.model.name,
            revision=spec.model.revision,
            max_length=spec.model.max_length,
            on_overflow="reject" if spec.model.on_overflow == "Reject" else "truncate",
            device=_DEVICES[spec.model.device],
            precision=_PRECISIONS[spec.model.precision],
            prompt=spec.model.prompt,
            normalize=spec.model.normalize,
            change_policy=_CHANGE_POLICIES[spec.model.change_policy],
        ),
        http=HttpSettings(control="off")
        if spec.http.token_secret is None
        else HttpSettings(token=FROM_ENVIRONMENT, control="token"),
        logging=LoggingSettings(format="json"),
    )


def _kafka(pipeline: EmbeddingPipeline) -> KafkaSettings:
    spec = pipeline.spec
    tls, sasl = spec.kafka.tls, spec.kafka.sasl
    certificate = tls.client_certificate_secret is not None
    return KafkaSettings(
        bootstrap_servers=spec.kafka.bootstrap_servers,
        tls=tls.enabled,
        tls_ca_file=names.CA_FILE if tls.ca_secret is not None else None,
        tls_certificate_file=f"{names.CLIENT_CERTIFICATE_DIRECTORY}/tls.crt" if certificate else None,
        tls_key_file=f"{names.CLIENT_CERTIFICATE_DIRECTORY}/tls.key" if certificate else None,
        sasl_mechanism=sasl.mechanism if sasl is not None else None,
        sasl_username=FROM_ENVIRONMENT if sasl is not None else None,
        sasl_password=FROM_ENVIRONMENT if sasl is not None else None,
        input_topic=spec.input.topic,
        output_topic=spec.output.topic,
        dead_letter_topic=names.dead_letter_topic(pipeline),
        # Topics are made by whoever starts the workers, who knows what they should look like.
        create_dead_letter_topic=False,
        consumer_group=names.consumer_group(pipeline),
        start_from="latest" if spec.input.start_from == "Latest" else "earliest",
    )


def config_map(pipeline: EmbeddingPipeline) -> Object:
    """The Kubernetes object. Raises as ``worker_settings`` does."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(pipeline),
        "data": {names.CONFIG_FILE: worker_settings(pipeline).to_yaml()},
    }
