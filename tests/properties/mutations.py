"""How a good file becomes a bad one."""

import copy
import math
from typing import Any

from hypothesis import strategies as st

# Values that a hand, a spreadsheet or another program puts where something else belongs.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2, 1e308, -1e308, 5e-324, 10**30, -(10**30), 10**400, math.nan, math.inf, -math.inf),
    *("", " ", "0", "nan", "1e-05", "none", "auto", "../../x", "/", "a\0b", "a\nb", "\ud800", "\u202e", "ä" * 500, "~nobody/x"),
    *([], {}, [[]], [None], [0, 0], ["GradCAM", "GradCAM"], {"": None}, {"a": {"b": []}}, [math.nan], {"size": 1}, {"nfiles": 1}),
)
odd_values = st.sampled_from(ODD_VALUES) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below the top."""
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [place for key, value in items for place in ((*at, key), *places(value, (*at, key)))]


@st.composite
def changed_documents(draw: st.DrawFn, document: dict[str, Any]) -> tuple[tuple[Any, ...], str, dict[str, Any]]:
    """A copy of a document that differs in one place: where, how (`set`, `deleted`, `added`), and the copy."""
    changed = copy.deepcopy(document)
    place = draw(st.sampled_from(places(document)))
    *parents, key = place
    section = changed
    for parent in parents:
        section = section[parent]
    how = draw(st.sampled_from(["set", "set", "set", "deleted", "added"]))
    if how == "set":
        section[key] = draw(odd_values)
    elif how == "deleted":
        del section[key]
    elif isinstance(section, dict):
        key = draw(st.sampled_from(["nonsense", "Seed", "", "0", "a.b"]) | st.text(max_size=10))
        section[key] = draw(odd_values)
    else:
        section.append(draw(odd_values))
    return (*parents, key), how, changed


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes, most: int = 4) -> bytes:
    """A copy of some bytes with up to `most` damages: cut, flipped, inserted, left out, repeated."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        where = draw(st.integers(0, len(changed)))
        length = draw(st.integers(1, 40))
        damage = draw(st.sampled_from(["cut", "flip", "flip", "set", "insert", "leave out", "repeat"]))
        if damage == "cut":
            del changed[where:]
        elif damage == "flip" and where < len(changed):
            changed[where] ^= 1 << draw(st.integers(0, 7))
        elif damage == "set":
            numbers = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x01")
            changed[where : where + 4] = draw(st.sampled_from(numbers))
        elif damage == "insert":
            changed[where:where] = draw(st.binary(min_size=1, max_size=8))
        elif damage == "leave out":
            del changed[where : where + length]
        else:
            changed[where:where] = changed[where : where + length]
    return bytes(changed)
