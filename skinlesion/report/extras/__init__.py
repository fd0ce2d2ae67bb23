"""What the report says of the extras: a module each, with one function `section` of what its file of metrics holds.

It gives blocks, the first of them the facts that sum the finding up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from skinlesion.audits.findings import extra_path
from skinlesion.report.blocks import Block, Details, Note, Paragraph
from skinlesion.report.extras import export, external, leak, near_duplicates, robustness

# What each is called, and who writes its section.
EXTRAS: dict[str, tuple[str, Callable[[Mapping[str, Any]], list[Block]]]] = {
    "leak": ("What a leak would add", leak.section),
    "near_duplicates": ("Near-duplicates across lesions", near_duplicates.section),
    "robustness": ("Corrupted images", robustness.section),
    "external": ("Images of another source", external.section),
    "export": ("Exported networks", export.section),
}
SUBJECTS = {"images": "images", "predictions": "classifier, calibration or test images", "recipe": "recipe"}


def file_of(name: str) -> str:
    """Where an extra writes what it found."""
    return extra_path(name).as_posix()


def command(name: str) -> str:
    """What runs an extra."""
    return f"dvc repro extras/dvc.yaml:{name.replace('_', '-')}"


@dataclass(frozen=True)
class Extra:
    """What an extra found, and of which subjects it is that the workspace has otherwise now (`outdated`)."""

    content: dict[str, Any]
    outdated: list[str]


def describe_extra(name: str, extra: Extra | None) -> list[Block]:
    """The blocks of an extra: what it found, with a warning if that is of something else; or how to run it, if it was not."""
    if extra is None:
        return [Paragraph(f"Not run. `{command(name)}` runs it, and the next `dvc repro` puts what it finds here.")]
    blocks: list[Block] = []
    if extra.outdated:
        others = " and ".join(SUBJECTS[subject] for subject in extra.outdated)
        blocks.append(Note(f"Outdated: measured with other {others} than this report is of. `{command(name)}` measures it anew."))
    try:
        return [*blocks, *EXTRAS[name][1](extra.content)]
    except (KeyError, TypeError, AttributeError) as error:
        unknown = f"`{file_of(name)}` has another layout than the report knows ({error!r}): shown as it stands."
        return [*blocks, Note(unknown), Details(f"`{file_of(name)}`", json.dumps(extra.content, indent=2))]
