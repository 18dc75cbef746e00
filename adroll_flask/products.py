"""An event's products: from dicts, dataclasses, or any objects with matching attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationInfo

from .errors import EventError
from .fields import Unreadable, accept_id, accept_label, accept_quantity, kind
from .money import accept_amount, rounded
from .names import PRODUCT_FIELDS
from .suggestions import nearest_product_field, shown

#: Products of one event.
MAX_PRODUCTS = 500


def _product_id(value: Any) -> str:
    return accept_id(value, "product_id")


def _product_group(value: Any) -> str | None:
    return accept_label(value, "product_group")


def _price(value: Any) -> Decimal | None:
    return None if value is None else accept_amount(value, "price")


def _price_in_currency(value: Any, info: ValidationInfo) -> Decimal | None:
    if value is None:
        return None
    context = info.context
    return rounded(accept_amount(value, "price"), context.currency if context else None)


def _quantity(value: Any) -> int | None:
    return None if value is None else accept_quantity(value)


def _category(value: Any) -> str | None:
    return accept_label(value, "category")


#: What each field takes, for events that are put together field by field.
PRODUCT_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "product_id": _product_id,
    "product_group": _product_group,
    "price": _price,
    "quantity": _quantity,
    "category": _category,
}


class EventProduct(BaseModel):
    """One product of an event, checked; its ``repr`` names fields and no values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: The product's id in the shop's catalogue or feed.
    product_id: Annotated[str, PlainValidator(_product_id)]
    #: The group of products that this one belongs to.
    product_group: Annotated[str | None, PlainValidator(_product_group)] = None
    #: Of one piece, in major units of the event's currency.
    price: Annotated[Decimal | None, PlainValidator(_price_in_currency)] = None
    #: How many pieces.
    quantity: Annotated[int | None, PlainValidator(_quantity)] = None
    category: Annotated[str | None, PlainValidator(_category)] = None

    def __repr__(self) -> str:
        told = [name for name in PRODUCT_FIELDS if self.__dict__.get(name) is not None]
        return f"<EventProduct: {', '.join(told)}>"

    __str__ = __repr__


def gather(products: Any, product_map: Any = None) -> list[Any]:
    """The products as dicts by AdRoll's names, not checked yet.

    :param products: dicts or objects with attributes; one alone is taken too.
    :param product_map: AdRoll's name to the shop's: a key or attribute, a dotted path such as
        ``"product.sku"``, or a function of the product. ``None`` leaves a field out. Fields that
        are not in it are looked up under AdRoll's name.
    :raises EventError: not products at all, or a wrong map.
    """
    if product_map is not None:
        _check_map(product_map)
    if isinstance(products, Mapping):
        products = [products]
    elif isinstance(products, str | bytes) or not isinstance(products, Iterable):
        if isinstance(products, str | bytes | int | float) or products is None:
            raise EventError("products", f"takes a list of products; it got {kind(products)}")
        products = [products]
    items = list(islice(products, MAX_PRODUCTS + 1))
    if len(items) > MAX_PRODUCTS:
        raise EventError("products", f"takes at most {MAX_PRODUCTS} products")
    if product_map:
        return [_mapped(item, product_map) for item in items]
    return [item if type(item) is dict else _plain(item) for item in items]


def _check_map(product_map: Any) -> None:
    if not isinstance(product_map, Mapping):
        raise EventError("product_map", f"takes a dict of names; it got {kind(product_map)}")
    for name, path in product_map.items():
        if name not in PRODUCT_FIELDS:
            near = nearest_product_field(name) if isinstance(name, str) else None
            hint = f"; did you mean {near!r}?" if near else ""
            raise EventError(
                "product_map",
                f"has AdRoll's names on the left ({', '.join(PRODUCT_FIELDS)}) and the shop's on "
                f"the right; {shown(name)!r} is none of AdRoll's{hint}",
            )
        if path is not None and not isinstance(path, str) and not callable(path):
            raise EventError("product_map", "takes a name, a dotted path, a function or None")


def _plain(item: Any) -> Any:
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, EventProduct):
        return dict(item.__dict__)
    if _is_scalar(item):
        # Refused where the event is checked, with its position.
        return item
    found = {name: _attribute(item, name) for name in PRODUCT_FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def _is_scalar(item: Any) -> bool:
    return item is None or isinstance(item, str | bytes | int | float | list | set)


def _attribute(item: Any, name: str) -> Any:
    try:
        return getattr(item, name, None)
    except Exception as problem:
        # An ORM's row may need its database for an attribute and fail in ways of its own.
        return Unreadable(type(problem).__name__)


def _step(item: Any, name: str) -> Any:
    if item is None or isinstance(item, Unreadable):
        return item
    return item.get(name) if isinstance(item, Mapping) else _attribute(item, name)


def _mapped(item: Any, product_map: Mapping[str, str | Callable[[Any], Any] | None]) -> Any:
    if _is_scalar(item):
        return item
    found: dict[str, Any] = {}
    for field in PRODUCT_FIELDS:
        path = product_map.get(field, field)
        if path is None:
            continue
        value: Any = item
        if isinstance(path, str):
            for name in path.split("."):
                value = _step(value, name)
        else:
            try:
                value = path(item)
            except Exception as problem:
                value = Unreadable(type(problem).__name__)
        if value is not None:
            found[field] = value
    return found
