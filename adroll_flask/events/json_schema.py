"""The JSON schema of an event: ``flask adroll schema``."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from .event import WireEvent


class _Schema(GenerateJsonSchema):
    """What is not known is absent: no ``null``, no default, and no title beside a name."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one event in a request's array."""
    schema = WireEvent.model_json_schema(schema_generator=_Schema)
    # Filled in when the event is sent, so the model leaves them open; AdRoll requires them.
    schema["required"] = ["advertisable_eid", "pixel_eid", *schema["required"]]
    schema["required"].remove("timestamp")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "AdRoll server-to-server event",
    }
