"""`params.yaml`: any text, and the repository's own with something wrong in it."""

import io
import math
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from ruamel.yaml import YAML

from skinlesion.config.params import load_params
from tests.conftest import ROOT
from tests.properties.mutations import changed_bytes, changed_documents, odd_values
from tests.properties.outcome import Property, keep, message_of, refused_by_name

PARAMS = Path("params.yaml")
OWN = (ROOT / "params.yaml").read_bytes()
DOCUMENT = YAML(typ="safe", pure=True).load(OWN.decode())
DOUBLED = "".join(f"a{number}: &a{number} [*a{number - 1}, *a{number - 1}]\n" for number in range(1, 40))

TEXTS: tuple[str | bytes, ...] = (
    *("", "\n", "a: 1", "- 1", "null", "a: [", "[" * 2000, "a: " + "{a: " * 2000, "a: 1\na: 2", "a: 1\n---\nb: 2", "a:\t1"),
    *("a: " + "9" * 5000, "a: 2001-99-99", "a: !!int x", "a: !!float x", "a: !!bool x", "a: !!binary é", '"\\UFFFFFFFF": 1'),
    *("a: !!python/object/apply:os.system ['touch owned']", "a: !!python/name:os.system", "a: !!set {x}", "a: !!omap [x: 1]"),
    *("a: {<<: 1}", "a: &a [*a]", "split: &a {seed: *a}", "a: &a\n  <<: *a\n", "? [a]\n: 1", "? {a: 1}\n: 1", "~: 1", "1: 2"),
    *("a0: &a0 [x]\n" + DOUBLED + "split: *a39\n", "a0: &a0 {x: 1}\n" + DOUBLED.replace("[", "{<<: [").replace("]", "]}")),
    *("%YAML 9.9\n---\na: 1", "split: {seed: *nothing}", b"\xff\xfea\0", b"split: \xe4", b"\xef\xbb\xbfsplit: {}", b"a: \0"),
)

FREE = {"overrides", "images", "class_multipliers", "groups"}  # mappings and lists of the user's own keys


def any_text_is_refused(content: str | bytes) -> None:
    """No text that hypothesis makes up is the whole of a file of params."""
    PARAMS.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    refused_by_name(message_of(load_params), "params.yaml", must=True)
    assert not Path("owned").exists()


def damaged_bytes_are_refused_or_still_params(content: bytes) -> None:
    PARAMS.write_bytes(content)
    refused_by_name(message_of(load_params), "params.yaml")


def one_wrong_value_is_named(changed: tuple[tuple[Any, ...], str, dict[str, Any]]) -> None:
    """What is refused is named by its key or its section; NaN, infinity, a missing and an unknown key are always refused."""
    place, how, document = changed
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(document, text)
    PARAMS.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    free = FREE & set(map(str, place)) or isinstance(place[-1], int)
    value = document
    for key in place if how != "deleted" else ():
        value = value[-1 if how == "added" and isinstance(value, list) else key]
    endless = how != "deleted" and isinstance(value, float) and not math.isfinite(value)
    names = [str(key) for key in place if isinstance(key, str) and key]
    names += ["'': unknown key", "not valid YAML", "half a character"]
    refused_by_name(message_of(load_params), *names, must=endless or (how != "set" and not free))


documents = st.dictionaries(st.sampled_from([*DOCUMENT, "x"]), odd_values, max_size=3).map(
    lambda document: "\n".join(f"{key}: {value!r}" for key, value in document.items())
)

PROPERTIES = (
    Property("params of any text", keep, st.sampled_from(TEXTS) | st.text() | st.binary() | documents, any_text_is_refused),
    Property("params with damaged bytes", keep, changed_bytes(OWN), damaged_bytes_are_refused_or_still_params, cost=6),
    Property("params with one wrong value", keep, changed_documents(DOCUMENT), one_wrong_value_is_named, cost=6),
)
