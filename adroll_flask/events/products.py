"""An event's products: from dicts, dataclasses, or any objects with matching attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from adroll_flask.errors import EventError
from adroll_flask.interruptions import let_through

from .coercion import Unreadable, kind
from .names import PRODUCT_FIELDS
from .suggestions import nearest_product_field, shown

#: Products of one event.
MAX_PRODUCTS = 500


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
    if not isinstance(products, list | tuple):
        if isinstance(products, str | bytes | int | float) or products is None:
            raise EventError("products", f"takes a list of products; it got {kind(products)}")
        alone = isinstance(products, Mapping) or not isinstance(products, Iterable)
        products = [products] if alone else list(islice(products, MAX_PRODUCTS + 1))
    if len(products) > MAX_PRODUCTS:
        raise EventError("products", f"takes at most {MAX_PRODUCTS} products")
    if product_map:
        _check_columns(products, product_map)
        return [_mapped(item, product_map) for item in products]
    return [item if type(item) is dict else _plain(item) for item in products]


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


def _check_columns(products: Iterable[Any], product_map: Mapping[str, Any]) -> None:
    """Refuse a name on the right that no product has: a column that was misspelt or renamed."""
    items = [item for item in products if item is not None and not _is_scalar(item)]
    for field, path in product_map.items():
        if not isinstance(path, str) or not items:
            continue
        name = path.partition(".")[0]
        if any(_has(item, name) for item in items):
            continue
        from difflib import get_close_matches

        first = items[0]
        known = [str(key) for key in first] if isinstance(first, Mapping) else dir(first)
        near = get_close_matches(name, [one for one in known if not one.startswith("_")], 1)
        hint = f"; did you mean {shown(near[0])!r}?" if near else ""
        raise EventError(
            "product_map", f"names {shown(name)!r} for {field}, which no product has{hint}"
        )


def _has(item: Any, name: str) -> bool:
    if isinstance(item, Mapping):
        return name in item
    try:
        return hasattr(item, name)
    except Exception as problem:
        let_through(problem)
        return True  # it is there, and cannot be read


def _plain(item: Any) -> Any:
    if isinstance(item, Mapping):
        return dict(item)
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
        let_through(problem)
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
                let_through(problem)
                value = Unreadable(type(problem).__name__)
        if value is not None:
            found[field] = value
    return found
