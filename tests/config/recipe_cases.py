"""The recipes' names, what their files say, and what DVC's parser makes of their words."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from recipes import recipe_words
from tests.conftest import ROOT

PUBLISHED = {
    *("capstone_resnet50", "attention_focal_b0", "two_phase_resnet50", "cosine_b0", "dsci_b0_baseline", "dsci_b0_sampler"),
    *("dsci_b0_mel3", "dsci_b0_synth", "dsci_b0_long_mel", "dsci_b2_mel224", "dsci_b2_acc260", "dsci_b2_melsampler260"),
}
NETWORKS = sorted(PUBLISHED | {"best_cpu", "best_gpu"})
NAMES = sorted({*NETWORKS, "ham10000", "plain", "smoke"})
# Mappings whose keys are not the schema's: a recipe replaces them as a whole.
OPEN = ("synthesize.images", "ensemble.overrides", "train.class_multipliers", "threshold_sweep.groups")

WriteRecipe = Callable[..., str]
Refused = Callable[..., str]


def read(path: Path) -> dict[str, Any]:
    """The content of a YAML file."""
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def apply(path: Path, *names: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Let DVC set the recipes' words in `params.yaml`, and read the file again."""
    words = recipe_words(list(names))
    assert words[::2] == ["-S"] * (len(words) // 2)
    apply_overrides(path, [*words[1::2], *more])
    return read(path)


def exactly(document: Any) -> str:
    """A text in which 1, 1.0, true and '1' differ."""
    return json.dumps(document, indent=1, sort_keys=True)


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys; the mappings of `OPEN` are values."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, dict) and key not in OPEN else {key: value}
    return flat


def chain(name: str) -> list[dict[str, Any]]:
    """Contents of a recipe's file and of those it is based on, the last first."""
    content = read(ROOT / "recipes" / f"{name}.yaml")
    return [*(chain(content["based_on"]) if "based_on" in content else []), content]


def expected(base: dict[str, Any], *names: str) -> dict[str, Any]:
    """What `params.yaml` must be after the recipes, worked out from their files by other means."""
    document = copy.deepcopy(base)
    for name in names:
        for content in chain(name):
            for key, value in flatten(content["params"]).items():
                *sections, last = key.split(".")
                section = document
                for part in sections:
                    section = section[part]
                section[last] = value
    return document
