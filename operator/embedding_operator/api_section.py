"""What the resource's models are made of: their common base, and the types that several of them use."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Section(BaseModel):
    """A part of the resource; its fields are named as in the manifest, in camel case."""

    # Strict, since the API server turns no "5" into 5; a field that is unknown here would silently do nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


def whole(value: object) -> object:
    """Make 256.0 an integer, as which JSON stores it and the API server takes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


ShortText = Annotated[str, Field(min_length=1, max_length=255)]
SecretName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
SecretKey = Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
