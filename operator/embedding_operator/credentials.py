"""The Secrets that a pipeline names: which keys it wants of them, and what follows from what is there; pure."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.api_section import SecretKey, SecretName
from embedding_operator.observed import Problem, Secrets
from embedding_operator.reasons import Reason
from embedding_service.contract.kafka import Connection


@dataclass(frozen=True, slots=True)
class SecretKeys:
    """A Secret that is named at ``field`` of the manifest, and the keys that it has to have."""

    field: str
    name: str
    keys: tuple[str, ...]


class EnvironmentKey(BaseModel):
    """A key of a Secret that a variable of ``spec.worker.env`` has its value from."""

    # The schema of `valueFrom` is open: another name, such as one with slashes, would lead to another object.
    model_config = ConfigDict(frozen=True, strict=True)

    name: SecretName
    key: SecretKey
    optional: bool | None = None


def wanted(pipeline: EmbeddingPipeline) -> tuple[SecretKeys, ...]:
    """All that a field of ours names. What Kubernetes itself reads, such as pull secrets, is not among it."""
    spec = pipeline.spec
    tls, sasl = spec.kafka.tls, spec.kafka.sasl
    found = []
    if tls.ca_secret is not None:
        found.append(SecretKeys("spec.kafka.tls.caSecret", tls.ca_secret.name, (tls.ca_secret.key,)))
    if tls.client_certificate_secret is not None:
        name = tls.client_certificate_secret.name
        found.append(SecretKeys("spec.kafka.tls.clientCertificateSecret", name, ("tls.crt", "tls.key")))
    if sasl is not None:
        secret = sasl.credentials_secret
        keys = (secret.username_key, secret.password_key)
        found.append(SecretKeys("spec.kafka.sasl.credentialsSecret", secret.name, keys))
    for field, token in (
        ("spec.model.tokenSecret", spec.model.token_secret),
        ("spec.http.tokenSecret", spec.http.token_secret),
    ):
        if token is not None:
            found.append(SecretKeys(field, token.name, (token.key,)))
    return tuple(found)


def environment(pipeline: EmbeddingPipeline) -> tuple[EnvironmentKey, ...]:
    """What variables of ``spec.worker.env`` are read from. What can't be read is left to Kubernetes to refuse."""
    found = []
    for variable in pipeline.spec.worker.env or ():
        reference = (variable.value_from or {}).get("secretKeyRef")
        with suppress(ValidationError):
            found.append(EnvironmentKey.model_validate(reference))
    return tuple(found)


def secret_names(pipeline: EmbeddingPipeline) -> frozenset[str]:
    """The Secrets that have to be read."""
    named = [one.name for one in wanted(pipeline)]
    return frozenset((*named, *(one.name for one in environment(pipeline))))


def gather(pipeline: EmbeddingPipeline, found: Mapping[str, Mapping[str, str] | None]) -> Secrets:
    """What the Secrets come to; ``found`` has the data of each by its name, and ``None`` for one that is missing."""
    namespace = pipeline.metadata.namespace
    values: dict[str, str] = {}
    for secret in wanted(pipeline):
        data = found.get(secret.name)
        if data is None:
            message = f"{secret.field}: there is no Secret '{secret.name}' in namespace '{namespace}'; create it"
            return Secrets(problem=Problem(Reason.SECRET_MISSING, message))
        for key in secret.keys:
            if not data.get(key):
                lack = "has nothing under" if key in data else "has no"
                message = f"{secret.field}: Secret '{secret.name}' {lack} key '{key}'; add it, or name another key"
                return Secrets(problem=Problem(Reason.SECRET_MISSING, message))
            values[f"{secret.name}/{key}"] = data[key]
    named = {secret.name for secret in wanted(pipeline)}
    ours = {name: data for name, data in found.items() if data is not None and name in named}
    for variable in environment(pipeline):
        value = (found.get(variable.name) or {}).get(variable.key)
        if value is not None:
            values[f"{variable.name}/{variable.key}"] = value
        elif not variable.optional:
            # No problem of ours: the kubelet says it of the pods. Workers start without an optional one, so that its
            # absence is a state like others.
            return Secrets(ours, complete=False)
    return Secrets(ours, _checksum(values) if values else None)


def _checksum(values: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def connection(pipeline: EmbeddingPipeline, secrets: Secrets) -> Connection:
    """How the operator reaches the brokers: at the same addresses and as the same user as the workers."""
    kafka = pipeline.spec.kafka
    tls, sasl = kafka.tls, kafka.sasl
    ca = tls.ca_secret
    client = secrets.data[tls.client_certificate_secret.name] if tls.client_certificate_secret is not None else {}
    user = secrets.data[sasl.credentials_secret.name] if sasl is not None else {}
    return Connection(
        bootstrap_servers=kafka.bootstrap_servers,
        tls=tls.enabled,
        ca_pem=secrets.data[ca.name][ca.key] if ca is not None else None,
        certificate_pem=client.get("tls.crt"),
        key_pem=client.get("tls.key"),
        sasl_mechanism=sasl.mechanism if sasl is not None else None,
        sasl_username=user[sasl.credentials_secret.username_key] if sasl is not None else None,
        sasl_password=user[sasl.credentials_secret.password_key] if sasl is not None else None,
    )


def http_token(pipeline: EmbeddingPipeline, secrets: Secrets) -> str | None:
    """What callers of the workers have to send."""
    token = pipeline.spec.http.token_secret
    return None if token is None else secrets.data[token.name][token.key]
