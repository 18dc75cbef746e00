"""An event's products: from dicts, dataclasses, or any objects with matching attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from adroll_flask.errors import EventError, let_through
from adroll_flask.visitor.identifiers import kind

from .names import PRODUCT_FIELDS, shown, suggestion

#: Products of one event.
MAX_PRODUCTS = 500
#: Types that are no product. The check of the event refuses them, with their position.
_NO_PRODUCT = (str, bytes, int, float, list, set, type(None))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a value that could not be read, until the check refuses it.

    :param error: the name of the exception.
    """

    error: str


def listed(products: Iterable[Any]) -> list[Any] | Unreadable:
    """A list of *products*, which may be an iterator: at most one more than an event takes."""
    try:
        return [*islice(products, MAX_PRODUCTS + 1)]
    except Exception as problem:
        let_through(problem)
        # A query may need its database and fail in ways of its own.
        return Unreadable(type(problem).__name__)


def gather(products: Any, product_map: Any) -> Sequence[Any]:
    """The products as dicts by AdRoll's names, not checked yet.

    :param products: dicts or objects with attributes; one alone is taken too.
    :param product_map: AdRoll's name to the shop's: a key or attribute, a dotted path such as
        ``"product.sku"``, or a function of the product. ``None`` leaves a field out. Fields that
        are not in it are looked up under AdRoll's name.
    :raises EventError: not products at all, or a wrong map.
    """
    if product_map is not None:
        _check_map(product_map)
    if type(products) is not list and not isinstance(products, tuple | list):
        if isinstance(products, str | bytes | int | float) or products is None:
            raise EventError("products", f"takes a list of products; it got {kind(products)}")
        alone = isinstance(products, Mapping) or not isinstance(products, Iterable)
        products = [products] if alone else listed(products)
    if isinstance(products, Unreadable):
        raise EventError("products", f"cannot be read ({products.error})")
    if len(products) > MAX_PRODUCTS:
        raise EventError("products", f"takes at most {MAX_PRODUCTS} products")
    if product_map:
        _check_columns(products, product_map)
    elif _are_dicts(products):  # as nearly always
        dicts: Sequence[Any] = products
        return dicts
    return [_mapped(item, product_map or {}) for item in products]


def _are_dicts(products: Sequence[Any]) -> bool:
    for item in products:  # noqa: SIM110 - each report would pay for a generator
        if type(item) is not dict:
            return False
    return True


def _check_map(product_map: Any) -> None:
    if not isinstance(product_map, Mapping):
        raise EventError("product_map", f"takes a dict of names; it got {kind(product_map)}")
    for name, path in product_map.items():
        if name not in PRODUCT_FIELDS:
            raise EventError(
                "product_map",
                f"has AdRoll's names on the left ({', '.join(PRODUCT_FIELDS)}) and the shop's on "
                f"the right; {shown(name)!r} is none of AdRoll's{suggestion(name, PRODUCT_FIELDS)}",
            )
        if path is not None and not isinstance(path, str) and not callable(path):
            raise EventError("product_map", "takes a name, a dotted path, a function or None")


def _check_columns(products: Iterable[Any], product_map: Mapping[str, Any]) -> None:
    """Refuse a name on the right that no product has: a column that was misspelt or renamed."""
    items = [item for item in products if not isinstance(item, _NO_PRODUCT)]
    for field, path in product_map.items():
        if not isinstance(path, str) or not items:
            continue
        name = path.partition(".")[0]
        if any(_value_of(item, name, _ABSENT) is not _ABSENT for item in items):
            continue
        first = items[0]
        keys = [str(key) for key in first] if isinstance(first, Mapping) else dir(first)
        # A visitor may have made a key: only plain names are shown.
        hint = suggestion(name, [key for key in keys if key[:1] != "_" and key == shown(key)])
        raise EventError(
            "product_map", f"names {shown(name)!r} for {field}, which no product has{hint}"
        )


_ABSENT = object()


def _value_of(item: Any, name: str | Callable[[Any], Any], default: object = None) -> Any:
    try:
        if callable(name):
            return name(item)
        if isinstance(item, Mapping):
            return item.get(name, default)
        return getattr(item, name, default)
    except Exception as problem:
        let_through(problem)
        # An ORM's row may need its database for an attribute and fail in ways of its own.
        return Unreadable(type(problem).__name__)


def _mapped(item: Any, product_map: Mapping[str, str | Callable[[Any], Any] | None]) -> Any:
    if isinstance(item, _NO_PRODUCT):
        return item
    # Without a map a dict is taken as it is: the check of its fields names those that are no field.
    if isinstance(item, Mapping) and not product_map:
        return item if type(item) is dict else _value_of(item, dict)
    product: dict[str, Any] = {}
    for field in PRODUCT_FIELDS:
        path = product_map.get(field, field)
        if path is None:
            continue
        value = item
        steps: Iterable[Any] = path.split(".") if isinstance(path, str) else (path,)
        for step in steps:
            if value is None or isinstance(value, Unreadable):
                break
            value = _value_of(value, step)
        if value is not None:
            product[field] = value
    return product
