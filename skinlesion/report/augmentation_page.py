"""A page that shows what augmentation does to the same images: every preset, and what the run has chosen."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from skinlesion.base.files import atomic_file
from skinlesion.base.pictures import write_png
from skinlesion.config.augmentation import Augmentation, AugmentationParams
from skinlesion.diagnoses import CLASSES
from skinlesion.training.augmentation.mixing import mix_batch
from skinlesion.training.augmentation.presets import NONE, PRESETS, resolve
from skinlesion.training.augmentation.transforms import train_transform

MOST_IMAGES = 6
SEED = 10  # of the draws that are shown; with this one the strong preset has a hair and an erased rectangle to show
MIXES: tuple[Literal["mixup", "cutmix"], ...] = ("mixup", "cutmix")
MIX_NAMES = {"mixup": "MixUp", "cutmix": "CutMix"}
MIX_DRAWS = 8  # most draws of a small alpha hardly mix; of so many the most even one is shown
MIX_PANELS = 2  # images of a mixed batch

CELL, GAP, GROUP_GAP, MARGIN = 1.36, 0.06, 0.25, 0.1  # inches: a panel's side, between panels, before the mixed ones, at the edge
HEADER, TITLE, LINE, CAPTION = 0.62, 0.28, 0.17, 0.48  # inches: above the rows, a row's name, a line of its values, below a panel
CHARACTERS = 13  # of the values' text, an inch
DPI = 100


class Panel(NamedTuple):
    """A square of the page. image : uint8 (S, S, 3), or None for an empty place with its caption in the middle. Two lines fit."""

    image: np.ndarray | None
    caption: str


class Row(NamedTuple):
    """A row of the page: what it shows, which values are switched on, and its panels from left to right."""

    name: str
    values: str
    panels: list[Panel]


def draw_augmentation_page(images: Sequence[np.ndarray], labels: Sequence[int], params: AugmentationParams, path: Path) -> None:
    """Draw the first `MOST_IMAGES` images as they are, then under each preset and, if that is none of them, under `params`.

    Beside them, where a preset mixes batches, MixUp and CutMix of the same augmented images. Equal input gives equal bytes;
    the draws disturb no generator.

    Parameters
    ----------
    images : uint8 (S, S, 3) each, at least one.
    labels : class indices, one an image.
    params : of the run.
    path : the PNG file to write.
    """
    some = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images[:MOST_IMAGES]])
    known = torch.as_tensor(np.asarray(labels[:MOST_IMAGES]), dtype=torch.int64)
    rows = [_row(name, augmentation, some, known) for name, augmentation in chosen_augmentations(params).items()]
    with atomic_file(path) as partial:
        write_png(_draw(rows, len(some)), partial, dpi=DPI)


def chosen_augmentations(params: AugmentationParams) -> dict[str, Augmentation]:
    """The rows of the page by their names: every preset, the run's marked; last the run's own values if they are no preset's."""
    values = resolve(params)
    is_preset = values == PRESETS[params.preset]
    rows = {
        f"preset {name}{', chosen in this run' if is_preset and name == params.preset else ''}": preset
        for name, preset in PRESETS.items()
    }
    return rows if is_preset else {**rows, f"this run: preset {params.preset} with changed values": values}


def switched_on(augmentation: Augmentation) -> str:
    """What an augmentation does, by the names in `params.yaml`: "vertical_flip, rotation 20, color_jitter 0.1"."""
    values = {name: value for name, value in augmentation if value != getattr(NONE, name) and name != "mix_share"}
    if augmentation.mixup or augmentation.cutmix:
        values["mix_share"] = augmentation.mix_share
    words = [name if value is True else f"{name} {value:g}" for name, value in values.items()]
    return ", ".join(words) or "images as they are"


def _row(name: str, augmentation: Augmentation, images: torch.Tensor, labels: torch.Tensor) -> Row:
    """Each image augmented once, and MixUp and CutMix of these; images uint8 (N, 3, S, S)."""
    transform = train_transform(augmentation, size=images.shape[-1])
    augmented = []
    with torch.random.fork_rng(devices=[]):
        for number, image in enumerate(images):
            torch.manual_seed(SEED + number)
            augmented.append(transform(image))
    batch = torch.stack(augmented)
    panels = [Panel(_pixels(image), CLASSES[label]) for image, label in zip(batch, labels.tolist(), strict=True)]
    for mix in MIXES:
        panels += _mixed_panels(mix, augmentation, batch, labels)
    return Row(name, switched_on(augmentation), panels)


def _mixed_panels(
    mix: Literal["mixup", "cutmix"], augmentation: Augmentation, batch: torch.Tensor, labels: torch.Tensor
) -> list[Panel]:
    """Some images of a batch (uint8, (N, 3, S, S)) after one way of mixing; empty panels where there is none."""
    alpha = getattr(augmentation, mix)
    if not alpha or not augmentation.mix_share or len(batch) < 2:
        return [Panel(None, "needs two images" if alpha and augmentation.mix_share else "off")] * MIX_PANELS
    alone = NONE.model_copy(update={mix: alpha, "mix_share": 1.0})
    generator = torch.Generator().manual_seed(SEED)
    draws = [
        mix_batch(batch.float(), labels, augmentation=alone, generator=generator, num_classes=len(CLASSES))
        for _ in range(MIX_DRAWS)
    ]
    mixture = min(draws, key=lambda draw: abs(draw.share - 0.5))
    panels = []
    for number in range(MIX_PANELS):
        own, other = (CLASSES[int(labels[position])] for position in (number, number - 1))
        caption = f"{mixture.share:.2f} {own}\n+ {1 - mixture.share:.2f} {other}"
        panels.append(Panel(_pixels(mixture.images[number].round().to(torch.uint8)), caption))
    return panels


def _pixels(image: torch.Tensor) -> np.ndarray:
    """uint8 (3, S, S) as (S, S, 3)."""
    return image.permute(1, 2, 0).numpy()


def _draw(rows: Sequence[Row], images: int) -> Figure:
    """The page: column headings, then the rows, each under its name and its values."""
    width = _left(images, len(rows[0].panels) - 1) + CELL + MARGIN
    values = [textwrap.wrap(row.values, int(CHARACTERS * width)) for row in rows]
    depths = [TITLE + LINE * len(lines) + CELL + CAPTION for lines in values]
    height = HEADER + sum(depths) + MARGIN
    figure = Figure(figsize=(width, height))
    headings = {0: "each image,\naugmented once"}
    for number, mix in enumerate(MIXES):
        headings[images + MIX_PANELS * number] = f"{MIX_NAMES[mix]} of the batch,\nmost even of {MIX_DRAWS} draws"
    for column, heading in headings.items():
        figure.text(_left(images, column) / width, 1 - 0.1 / height, heading, va="top", fontsize=12, weight="bold")
    top = height - HEADER
    for row, lines, depth in zip(rows, values, depths, strict=True):
        figure.text(MARGIN / width, (top - 0.02) / height, row.name, va="top", fontsize=12, weight="bold")
        figure.text(MARGIN / width, (top - TITLE + 0.04) / height, "\n".join(lines), va="top", fontsize=10, color="0.3")
        bottom = top - TITLE - LINE * len(lines) - CELL
        for column, panel in enumerate(row.panels):
            left = _left(images, column)
            axes = figure.add_axes((left / width, bottom / height, CELL / width, CELL / height))
            axes.set_axis_off()
            place = (left + CELL / 2) / width
            if panel.image is None:
                figure.text(place, (bottom + CELL / 2) / height, panel.caption, ha="center", fontsize=10, color="0.5")
            else:
                axes.imshow(panel.image, interpolation="antialiased")
                for line, text in enumerate(panel.caption.splitlines()):
                    figure.text(place, (bottom - 0.14 - 0.15 * line) / height, text, ha="center", va="baseline", fontsize=9)
        top -= depth
    return figure


def _left(images: int, column: int) -> float:
    """Where a column begins, inches; wider gaps before the mixed ones."""
    groups = 0 if column < images else 1 + (column - images) // MIX_PANELS
    return MARGIN + column * (CELL + GAP) + groups * GROUP_GAP
