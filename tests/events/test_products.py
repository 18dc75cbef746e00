"""Products come from dicts, dataclasses and rows, under AdRoll's names or the shop's."""

import re
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from adroll_flask import EventError
from adroll_flask.events.event import EventProduct
from adroll_flask.events.names import PRODUCT_FIELDS, Product
from tests.support.event_kit import leniently, strictly

MUG = {"product_id": "mug", "price": "29.95", "quantity": 2}


def sent(products: Any, currency: str | None = "EUR", **fields: Any) -> list[dict[str, Any]]:
    wire = strictly("addToCart", products=products, currency=currency, **fields).event.wire()
    found: list[dict[str, Any]] = wire["event_attributes"]["products"]
    return found


@dataclass
class Line:
    product_id: str
    price: Decimal
    quantity: int = 1
    note: str = "for grandmother"


def rows() -> Iterator[dict[str, Any]]:
    yield MUG


@pytest.mark.parametrize(
    "products",
    [
        [MUG],
        (MUG,),
        MUG,
        MappingProxyType(MUG),
        [MappingProxyType(MUG)],
        [Line("mug", Decimal("29.95"), 2)],
        Line("mug", Decimal("29.95"), 2),
        [SimpleNamespace(**MUG)],
        [namedtuple("Row", MUG)(**MUG)],
        rows(),
        [EventProduct(product_id="mug", price=Decimal("29.95"), quantity=2)],
    ],
    ids=lambda products: type(products).__name__,
)
def test_products_come_in_many_clothes(products: Any) -> None:
    assert sent(products) == [MUG]


def test_a_products_fields_are_those_that_the_editor_knows() -> None:
    assert set(Product.__annotations__) == set(PRODUCT_FIELDS) == {*EventProduct.__struct_fields__}


MAP = {"product_id": "article.sku", "price": "article.unit_price", "quantity": "amount"}


class Detached:
    """As a row of an ORM whose session is gone."""

    amount = 2

    @property
    def article(self) -> object:
        raise LookupError


def test_rows_are_mapped_by_paths_and_a_detached_one_costs_its_product_alone() -> None:
    article = SimpleNamespace(sku="mug", unit_price=Decimal("29.95"))
    row = SimpleNamespace(article=article, amount=2, category=object())
    by = {**MAP, "category": None}
    assert sent([row], product_map=by) == [MUG]
    built = leniently(order_id="1", products=[Detached(), row], product_map=by)
    assert [product.product_id for product in built.event.products] == ["mug"]
    assert built.dropped[0][0] == "products[0].product_id"
    with pytest.raises(EventError, match="LookupError"):
        strictly(products=[Detached()], product_map=MAP)


def test_a_map_takes_functions_paths_into_dicts_and_none() -> None:
    shop = {"article": {"sku": "mug"}, "cents": 2995, "category": object(), "quantity": 2}
    shop["category_of"] = None  # a path that leads nowhere
    given = {**shop}
    product_map = {
        "product_id": "article.sku",
        "price": lambda line: Decimal(line["cents"]) / 100,
        "product_group": "category_of.name",
        "category": None,
    }
    assert sent([shop], product_map=product_map) == [MUG]
    assert shop == given, "the caller's own is not changed"
    built = leniently(products=[shop], product_map={**product_map, "price": lambda line: 1 / 0})
    assert built.event.products[0].product_id == "mug"
    assert built.dropped == (
        ("products[0].price", "is an attribute that cannot be read (ZeroDivisionError)"),
    )


@pytest.mark.parametrize(
    ("product_map", "told"),
    [
        ({"sku": "product_id"}, "AdRoll's names on the left"),
        ({7: "x"}, "AdRoll's names on the left"),
        ("product_id", "takes a dict of names"),
        ([("a", "b")], "takes a dict of names"),
        ({"product_id": 7}, "takes a name"),
        ({"price": "prize"}, "names 'prize' for price, which no product has; did you mean 'price'"),
    ],
)
def test_another_map_is_refused(product_map: Any, told: str) -> None:
    with pytest.raises(EventError, match=f"^product_map: .*{re.escape(told)}"):
        strictly("addToCart", products=[MUG], product_map=product_map)


@pytest.mark.parametrize(
    ("field", "given", "currency", "kept"),
    [
        ("price", 29.9, "EUR", "29.90"),
        ("price", Decimal("3.3333"), "EUR", "3.33"),
        ("price", 30, "JPY", "30"),
        ("price", Decimal("1E+1"), None, "10"),
        *(("quantity", given, None, 2) for given in (2, "2", 2.0, Decimal(2))),
        ("category", " Mugs\n& pots", None, "Mugs & pots"),
        ("category", "", None, None),
    ],
)
def test_fields_have_one_form(field: str, given: Any, currency: str | None, kept: object) -> None:
    assert sent([{"product_id": 1, field: given}], currency)[0].get(field) == kept


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("price", -1),
        ("price", "12,50"),
        *(
            ("quantity", bad)
            for bad in (0, -1, 1.5, "", "two", True, float("nan"), 10**7, "٢", [1])
        ),
        ("category", "x" * 257),
        ("category", object()),
        ("product_group", ["x"]),
        ("colour", "red"),
    ],
)
def test_a_bad_field_of_a_product_costs_that_field_only(name: str, bad: Any) -> None:
    built = leniently(order_id="1", products=[MUG, {"product_id": "pot", name: bad}])
    assert [product.product_id for product in built.event.products] == ["mug", "pot"]
    assert getattr(built.event.products[1], name, None) is None
    assert [field for field, _ in built.dropped] == [f"products[1].{name}"]
    with pytest.raises(EventError, match=rf"^products\[1\]\.{name}: "):
        strictly(order_id="1", products=[MUG, {"product_id": "pot", name: bad}])


def test_unknown_keys_that_are_no_names_cost_themselves_only() -> None:
    built = leniently(order_id="1", products=[MUG | {"unit price": 1, "Größe": 2, 3: "red"}])
    assert [product.product_id for product in built.event.products] == ["mug"]
    assert {field for field, _ in built.dropped} == {"products[0].?"}


@pytest.mark.parametrize(
    "bad", ["mug", 7, None, [], {}, {"product_id": ""}, {"product_id": 1.5}, object()]
)
def test_a_product_without_an_id_costs_that_product_only(bad: Any) -> None:
    built = leniently(order_id="1", products=[bad, MUG, bad])
    assert [product.product_id for product in built.event.products] == ["mug"]
    assert [field[:11] for field, _ in built.dropped] == ["products[0]", "products[2]"]
    with pytest.raises(EventError, match=r"^products\[0\]"):
        strictly(order_id="1", products=[bad])


def test_what_is_remembered_of_a_product_is_of_its_very_values() -> None:
    """``True`` equals 1 and 29.950 equals 29.95; a currency has its own decimals."""
    one = {"product_id": "mug", "price": Decimal("29.950"), "quantity": 1}
    for _ in range(2):
        assert sent([one]) == [{"product_id": "mug", "price": "29.95", "quantity": 1}]
        assert sent([one], "KWD") == [{"product_id": "mug", "price": "29.950", "quantity": 1}]
        assert sent([one], None) == [{"product_id": "mug", "price": "29.950", "quantity": 1}]
        with pytest.raises(EventError, match=r"products\[0\].quantity"):
            sent([{**one, "quantity": True}])
        assert sent([{**one, "product_id": 1}])[0]["product_id"] == "1"
        with pytest.raises(EventError, match=r"products\[0\].product_id"):
            sent([{**one, "product_id": 1.0}])
