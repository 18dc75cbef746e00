"""What the shop sells."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

CURRENCY: Final = "EUR"


@dataclass(frozen=True, slots=True)
class Product:
    """One piece; ``picture`` is a file in ``static/products``."""

    id: str
    name: str
    category: str
    price: Decimal
    blurb: str
    story: str
    size: str

    @property
    def picture(self) -> str:
        return f"products/{self.id}.svg"


PRODUCTS: Final = (
    Product(
        id="harbour-mug",
        name="Harbour mug",
        category="Cups & pots",
        price=Decimal("29.95"),
        blurb="A broad handle and a rim that is kind to lips.",
        story="Thrown in one go, dipped once in deep blue and once, only halfway, in white. "
        "It holds a generous coffee and keeps it warm for a whole chapter.",
        size="9 cm tall, holds 320 ml",
    ),
    Product(
        id="estuary-teapot",
        name="Estuary teapot",
        category="Cups & pots",
        price=Decimal("89.00"),
        blurb="Pours without a drip, all four cups of it.",
        story="The spout is cut by hand until it pours cleanly. A fine sieve is built into the "
        "wall, so that the leaves stay where they are.",
        size="14 cm tall, holds 900 ml",
    ),
    Product(
        id="pier-jug",
        name="Pier jug",
        category="Cups & pots",
        price=Decimal("48.00"),
        blurb="Water, wine, or the first tulips.",
        story="A jug that stands as steadily as its namesake. The band of bare clay gives your "
        "hand something to hold on to when the glaze is wet.",
        size="21 cm tall, holds 1.2 l",
    ),
    Product(
        id="low-tide-bowl",
        name="Low-tide bowl",
        category="Plates & bowls",
        price=Decimal("34.00"),
        blurb="For soup, for salad, for one person too many.",
        story="Inside, the glaze runs together into a small sea; no two bowls have the same "
        "shoreline. They stack, and they may go into the oven.",
        size="18 cm across, holds 750 ml",
    ),
    Product(
        id="dune-plate",
        name="Dune plate",
        category="Plates & bowls",
        price=Decimal("27.50"),
        blurb="A raised edge that keeps the sauce on board.",
        story="Speckled with sand from the beach behind the workshop. The rim is lifted by a "
        "finger's breadth: half plate, half bowl, all dinner.",
        size="26 cm across",
    ),
    Product(
        id="saltmarsh-vase",
        name="Saltmarsh vase",
        category="For the house",
        price=Decimal("64.00"),
        blurb="A narrow neck that makes three stems look like plenty.",
        story="Coiled slowly over two days and glazed in the grey-green of sea lavender "
        "leaves. Beautiful with flowers, and in winter without.",
        size="24 cm tall",
    ),
    Product(
        id="cliff-planter",
        name="Cliff planter",
        category="For the house",
        price=Decimal("39.00"),
        blurb="Bare terracotta below, weather above.",
        story="Unglazed on the inside so that roots can breathe, with a saucer that fits. "
        "Comes without the plant, leaves with your favourite one.",
        size="15 cm across",
    ),
    Product(
        id="lighthouse-candle",
        name="Lighthouse candle holder",
        category="For the house",
        price=Decimal("22.00"),
        blurb="A small light at the end of the table.",
        story="A heavy foot, a deep cup, and a glaze that catches the flame. Takes any "
        "ordinary candle of 2.2 centimetres.",
        size="11 cm tall",
    ),
)

_BY_ID: Final = {product.id: product for product in PRODUCTS}


def find(product_id: str) -> Product | None:
    """The product of that id, or ``None``."""
    return _BY_ID.get(product_id)


def search(words: str) -> list[Product]:
    """Products in whose name, category or texts every one of *words* occurs."""
    wanted = words.casefold().split()
    return [
        product
        for product in PRODUCTS
        if all(
            word in f"{product.name} {product.category} {product.blurb} {product.story}".casefold()
            for word in wanted
        )
    ]
