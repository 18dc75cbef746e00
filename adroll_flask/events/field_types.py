"""What the fields of an event are: the types of pydantic's core, and the bounds.

Python looks at a value only where the core refuses it (:mod:`.coercion`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from adroll_flask.visitor.identifiers import (
    COOKIE_PATTERN,
    IPV4,
    MAX_ADCT,
    MAX_EMAIL,
    MAX_USER_ID,
    PLAIN_COOKIE,
    accept_device_id,
    accept_user_id,
    normalise_ip,
)

from . import coercion, money, names
from .coercion import MAX_KEYWORDS, MAX_QUANTITY, MAX_TEXT, MAX_USER_AGENT
from .page_location import MAX_LOCATION, PLAIN, accept_location

#: The last step of an error's place: who refused the value.
CORE, OTHER = "core", "other"


class Also:
    """After a type: what it takes beside the values that pydantic's core sees are in order.

    :param accept: gets what the core refuses; gives the field's own form, or raises an
        :class:`~adroll_flask.errors.EventError` that says what the field takes.
    :param core: the core's type, where that of the annotation does not say it.
    :param written: what the core writes into JSON.
    :param schema: what the JSON schema says beyond the core's type.
    """

    def __init__(
        self,
        accept: Callable[[Any], Any],
        *,
        core: CoreSchema | None = None,
        written: core_schema.ExpectedSerializationTypes = "str",
        **schema: Any,
    ) -> None:
        self.accept = accept
        self.core = core
        self._written = written
        self._schema = schema

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        core = handler(source) if self.core is None else self.core
        other = core_schema.no_info_plain_validator_function(self.accept)
        return core_schema.union_schema(
            [(core, CORE), (other, OTHER)],
            mode="left_to_right",
            serialization=core_schema.simple_ser_schema(self._written),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        core: Any = schema["choices"][0]
        return {**handler(core[0]), **self._schema}


_text = functools.partial(StringConstraints, strict=True)
_words = functools.partial(
    _text, strip_whitespace=True, min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"
)
Id = Annotated[str, _words(max_length=MAX_TEXT), Also(coercion.accept_id)]
Label = Annotated[str, _words(max_length=MAX_TEXT), Also(coercion.accept_label)]
Keywords = Annotated[str, _words(max_length=MAX_KEYWORDS), Also(coercion.accept_keywords)]
UserAgent = Annotated[str, _words(max_length=MAX_USER_AGENT), Also(coercion.accept_user_agent)]
UserId = Annotated[str, _words(max_length=MAX_USER_ID), Also(accept_user_id)]
Eid = Annotated[str, _text(pattern=r"^[A-Z0-9]{8,40}$"), Also(coercion.accept_eid)]
Sha256 = Annotated[str, _text(pattern=r"^[0-9a-f]{64}$"), Also(coercion.accept_sha256)]
Md5 = Annotated[str, _text(pattern=r"^[0-9a-f]{32}$"), Also(coercion.accept_md5)]
Adct = Annotated[
    str, _text(pattern=rf"^[\x21-\x7e]{{1,{MAX_ADCT}}}$"), Also(coercion.accept_click_id)
]
Cookie = Annotated[
    str,
    _text(pattern=PLAIN_COOKIE),
    Also(
        coercion.accept_cookie,
        pattern=f"^{COOKIE_PATTERN}$",
        examples=["46d41c62e88bb2e267c1e15314bb8837-1667065540836"],
    ),
]
Address = Annotated[
    str,
    _text(
        to_lower=True,
        max_length=MAX_EMAIL,
        pattern=r"^[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+$",
    ),
    Also(coercion.accept_address),
]
#: All zeros say that the user opted out and identify nobody: no pattern of the core's tells them.
DeviceId = Annotated[
    str,
    PlainValidator(
        accept_device_id,
        json_schema_input_type=Annotated[
            str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
        ],
    ),
]
Location = Annotated[
    str,
    _text(max_length=MAX_LOCATION, pattern=PLAIN),
    Also(accept_location, pattern=r"^https?://[\x21-\x7e]+$"),
]
Ip = Annotated[
    str,
    _text(pattern=IPV4),
    Also(
        normalise_ip,
        pattern=r"^[0-9A-Fa-f.:]+$",
        description="The visitor's IPv4 or IPv6 address.",
    ),
]
Time = Annotated[
    float,
    Field(strict=True, ge=coercion.OLDEST, lt=coercion.MILLISECONDS, allow_inf_nan=False),
    Also(coercion.accept_timestamp, written="float", description="UTC seconds."),
]
Currency = Annotated[
    str,
    Also(
        money.accept_currency,
        core=core_schema.literal_schema(sorted(money.DECIMALS)),
        description="ISO 4217.",
    ),
]
#: In major units; rounded to the currency's decimals where the event's fields are fitted together.
Amount = Annotated[
    Decimal,
    Also(
        money.accept_amount,
        core=core_schema.chain_schema(
            [
                # By its form below the limit, finite and not negative.
                core_schema.str_schema(pattern=r"^[0-9]{1,14}(?:\.[0-9]{1,20})?$", strict=True),
                core_schema.decimal_schema(allow_inf_nan=True),
            ]
        ),
        written="any",
        type="string",
        pattern=rf"^(0|[1-9][0-9]{{0,13}})(\.[0-9]{{1,{money.MOST_DECIMALS}}})?$",
        description="Major units; with the currency's own number of decimals.",
        examples=["123.45"],
    ),
]
Quantity = Annotated[
    int,
    Field(strict=True, ge=1, le=MAX_QUANTITY),
    Also(coercion.accept_quantity, written="int"),
]
JsonText = Annotated[
    str,
    PlainValidator(
        coercion.accept_json_text,
        json_schema_input_type=Annotated[str, Field(description="JSON in a text.")],
    ),
]

EventName = Annotated[names.EventName, Also(coercion.accept_event_name)]
