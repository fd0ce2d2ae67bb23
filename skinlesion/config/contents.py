"""What the artifacts that are not tables of images must hold; each check raises `PipelineError` naming the file and the key.

Like `skinlesion.base.files` and `skinlesion.config.params`, it decides how a stage fails and not what it computes.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.base.errors import PipelineError, brief, name_some
from skinlesion.diagnoses import CLASSES

FITS = ("squash", "crop", "pad")
COLOR_CONSTANCIES = ("none", "shades_of_gray")
TEST_TIMES = ("none", "flips", "square", "multi_crop")
LONGEST_SIDE = 65_535  # pixels, what a JPEG can have


def is_number(value: object) -> bool:
    """Whether a value from JSON is a finite number; `true` is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number over 1e308
        return False


class Named(dict[str, Any]):
    """The content of a JSON file, which says where a key is missing that somebody asks for by `[]`.

    place : the file, and within it the keys that lead here.
    """

    def __init__(self, content: dict[str, Any], place: str) -> None:
        super().__init__({key: _named(value, f"{place}, {key}") for key, value in content.items()})
        self.place = place

    def __missing__(self, key: str) -> Any:
        raise PipelineError(f"{self.place} lacks '{key}': run the stage that writes it again, or `dvc repro`")


def _named(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return Named(value, place)
    return [_named(each, place) for each in value] if isinstance(value, list) else value


def check_provenance(content: dict[str, Any], path: Path) -> None:
    """Insist on what is shown of the provenance."""
    for key, kind, said in (
        *(("source", str, "a text"), ("synthetic", bool, "true or false")),
        *(("licence", str, "a text"), ("counts", dict, "an object")),
    ):
        if key not in content:
            raise PipelineError(f"{path} lacks '{key}': run `download` again")
        if not isinstance(content[key], kind):
            raise PipelineError(f"{path}: {key} must be {said}, not {brief(content[key])}: run `download` again")


def check_split_facts(content: dict[str, Any], path: Path) -> None:
    """Insist on the facts of a split, and nothing else."""
    wanted = {"fingerprint": str, "source": str, "synthetic": bool}
    if content.keys() != wanted.keys():
        raise PipelineError(f"{path} is incomplete: run `split` again, for it must hold {', '.join(wanted)} alone")
    for key, kind in wanted.items():
        if not isinstance(content[key], kind):
            raise PipelineError(f"{path}: {key} must not be {brief(content[key])}: run `split` again")


def check_index(index: pd.DataFrame, path: Path) -> None:
    """Refuse an index of prepared images that does not say of each one how it was fitted."""
    for name, known in (("fit", FITS), ("color_constancy", COLOR_CONSTANCIES)):
        if index[name].nunique() != 1:
            raise PipelineError(f"{path} mixes several values of {name}: run `prepare` again")
        if index[name].iloc[0] not in known:
            raise PipelineError(f"{path}: {name} can be {', '.join(known)}, not {index[name].iloc[0]!r}: run `prepare` again")
    for name in ("width", "height"):
        pixels = pd.to_numeric(index[name], errors="coerce")
        odd = index[~(pixels.between(1, LONGEST_SIDE) & (pixels % 1 == 0))]
        if len(odd):
            offenders = name_some(f"'{value}' ({image_id})" for image_id, value in zip(odd["image_id"], odd[name], strict=True))
            raise PipelineError(f"{path}: {name} must be a whole number of pixels, not {offenders}: run `prepare` again")
        index[name] = pixels.astype(np.int64)


def check_calibration(content: dict[str, Any], path: Path) -> None:
    """Refuse a calibration that cannot be applied."""
    if content.get("method") not in ("temperature", "vector"):
        said = brief(content.get("method"))
        raise PipelineError(f"{path}: method must be temperature or vector, not {said}: run `evaluate` again")
    for name in ("scale", "bias"):
        values = content.get(name)
        if not isinstance(values, list) or len(values) != len(CLASSES) or not all(map(is_number, values)):
            raise PipelineError(
                f"{path}: {name} must be {len(CLASSES)} finite numbers, not {brief(values)}: run `evaluate` again"
            )
    if content["method"] == "temperature" and content["scale"][0] <= 0:
        raise PipelineError(f"{path}: scale of a temperature must be above 0, not {content['scale'][0]}: run `evaluate` again")
    if content.get("test_time") not in TEST_TIMES:
        said = brief(content.get("test_time"))
        raise PipelineError(f"{path}: test_time must be one of {', '.join(TEST_TIMES)}, not {said}: run `evaluate` again")


def check_conformal(content: dict[str, Any], path: Path) -> None:
    """Refuse sets of diagnoses that cannot be formed."""
    if content.get("method") not in ("aps", "raps"):
        raise PipelineError(f"{path}: method must be aps or raps, not {brief(content.get('method'))}: run `selective` again")
    for name in ("penalty", "free"):
        if not is_number(content.get(name)) or content[name] < 0:
            raise PipelineError(f"{path}: {name} must be 0 or more, not {brief(content.get(name))}: run `selective` again")
    if not isinstance(content.get("calibration"), dict):
        raise PipelineError(
            f"{path}: calibration must be an object, not {brief(content.get('calibration'))}: run `selective` again"
        )
    check_calibration(content["calibration"], path)
    levels = content.get("levels")
    if not isinstance(levels, dict) or not levels:
        raise PipelineError(f"{path}: levels must be an object, a level each, not {brief(levels)}: run `selective` again")
    for level, quantile in levels.items():
        if quantile is not None and not is_number(quantile):
            raise PipelineError(f"{path}: levels.{level} must be a number or null, not {brief(quantile)}: run `selective` again")


def check_operating_points(content: dict[str, Any], path: Path) -> None:
    """Refuse operating points that cannot be applied."""
    missing = [key for key in ("target", "classes", "score", "rule", "chosen_on", "points") if not content.get(key)]
    if missing:
        raise PipelineError(f"{path} lacks {', '.join(missing)}: run `threshold-sweep` again")
    for key in ("target", "score", "rule", "chosen_on"):
        if not isinstance(content[key], str):
            raise PipelineError(f"{path}: {key} must be a text, not {brief(content[key])}: run `threshold-sweep` again")
    classes = content["classes"]
    if not isinstance(classes, list):
        raise PipelineError(f"{path}: classes must be a list of diagnoses, not {brief(classes)}: run `threshold-sweep` again")
    unknown = [dx for dx in classes if dx not in CLASSES]
    if unknown:
        raise PipelineError(f"{path}: unknown diagnosis {name_some(map(brief, unknown))}: run `threshold-sweep` again")
    if len(set(classes)) != len(classes):
        raise PipelineError(f"{path}: classes names a diagnosis twice: run `threshold-sweep` again")
    if not isinstance(content["points"], dict):
        raise PipelineError(f"{path}: points must be an object, a name each: run `threshold-sweep` again")
    for name, point in content["points"].items():
        threshold = point.get("threshold") if isinstance(point, dict) else None
        # Summed probabilities may end a rounding error above 1.
        if not is_number(threshold) or not 0 <= threshold <= 1 + 1e-9:
            raise PipelineError(
                f"{path}: threshold of '{name}' must be a number from 0 to 1, not {brief(threshold)}: run `threshold-sweep` again"
            )


def check_member_names(content: dict[str, Any], path: Path) -> list[str]:
    """The names of an ensemble's members; each is a folder's, and must not lead elsewhere."""
    members = content.get("members")
    names = [member.get("name") if isinstance(member, dict) else None for member in members] if isinstance(members, list) else []
    if not names or None in names:
        raise PipelineError(f"{path} names no members: run `assemble` again")
    odd = [name for name in names if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*-[0-9]+", name)]
    if odd or len(set(names)) != len(names):
        said = f"{name_some(map(brief, odd))} is no member's name" if odd else "it names a member twice"
        raise PipelineError(f"{path}: {said}: run `assemble` again")
    return [str(name) for name in names]
