"""Names of several parts, and back."""

import pytest

from fixtures.postgres.names import joined, parted


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("shop", "public", "tickets"), "shop.public.tickets"),
        (("a.b", "c", "d"), '"a.b".c.d'),
        (("a", "b.c", "d"), 'a."b.c".d'),
        (("a", 'q"uote', ".."), 'a."q""uote".".."'),
        (("ä b", "", "c"), 'ä b."".c'),
    ],
)
def test_parts_are_told_again(parts: tuple[str, ...], text: str):
    """A dot of a part's own is not taken for one between parts."""
    assert joined(*parts) == text
    assert parted(text) == parts
