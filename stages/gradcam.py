"""Show where the network found the evidence for what it predicted.

Reads `models/classifier`, `data/predictions/test.csv`, `data/prepared`, `data/raw` (images, masks where there are any,
provenance) and the section `gradcam` of `params.yaml`, of whose methods each must be able to read each member. Writes, with the
first method's maps of the class that the ensemble predicts (the mean of its members' maps, of the images as they are, without
test-time views):

- `plots/gradcam/examples.png`: a page of examples (further pages `examples_2.png`, ... where one is not enough), errors
  first, missed melanomas before other errors, then correct predictions of each class, the most confident first;
- `plots/gradcam/examples.csv`: the same examples as a table;
- `plots/gradcam/energy.csv`: an energy ratio (`skinlesion.cam.energy`) for every test image with a mask, but for those
  whose ratio is undefined (no lesion pixel in the mask, or a map that is zero everywhere);
- `metrics/gradcam.json`: method, layer of each member, counts, and the energy ratios in summary, null where the source has no
  masks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from skinlesion import artifacts
from skinlesion.cam.energy import crop_to_square, energy_ratio, summarize_energy
from skinlesion.cam.examples import choose_examples, judge_predictions
from skinlesion.cam.members import MemberMaps, count_zero_maps, explain, find_layers, place_mean
from skinlesion.cam.pages import Example, draw_pages
from skinlesion.classifier import Classifier, ClassifierConfig, check_prepared, load_ensemble
from skinlesion.cpu_memory import keep_freed_memory
from skinlesion.devices import choose_device
from skinlesion.errors import run_stage
from skinlesion.files import atomic_folder, write_json
from skinlesion.originals import read_image, read_mask
from skinlesion.params import GradcamParams, load_params
from skinlesion.tables import write_table

logger = logging.getLogger(__name__)

Placed = Callable[[Any], np.ndarray]  # a row of the table to the image's map on its original, float64 (height, width)

SEED = 0  # of the noise of SmoothGradCAMpp and SSCAM
EXAMPLE_COLUMNS = ("position", "image_id", "lesion_id", "dx", "predicted", "probability", "kind")
ENERGY_COLUMNS = ("image_id", "dx", "outcome", "energy_ratio")


def main() -> None:
    """Compute the maps that are needed, measure those with a mask, and draw the examples."""
    params = load_params().gradcam
    keep_freed_memory()
    prepared, provenance = artifacts.read_prepared(), artifacts.read_provenance()
    members = load_ensemble()
    for classifier in members.values():
        check_prepared(prepared, classifier.config)
    config = next(iter(members.values())).config  # of size and fit, in which members agree
    predictions = artifacts.read_predictions("test")
    table = judge_predictions(predictions)
    table[["row", "width", "height"]] = locate(prepared, table["image_id"])
    table["has_mask"] = [artifacts.mask_path(image_id).exists() for image_id in table["image_id"]]
    examples = choose_examples(table, max_errors=params.max_errors, correct_per_class=params.correct_per_class)

    find_layers(members, params.methods, params.layer)
    method = params.methods[0]
    needed = table[table["has_mask"] | table["image_id"].isin(examples["image_id"])]
    maps = explain(
        members,
        prepared.images,
        needed.join(predictions[["age", "sex", "localization"]]),
        method=method,
        layer=params.layer,
        device=choose_device(params.device),
        batch_size=params.batch_size,
        seed=SEED,
    )
    positions = {image_id: position for position, image_id in enumerate(needed["image_id"])}

    def placed(image: Any) -> np.ndarray:
        position = positions[image.image_id]
        return place_mean(list(maps.values()), position, image.width, image.height, size=config.size, fit=config.fit)

    zeros = count_zero_maps(list(maps.values()))
    if zeros:
        logger.warning("%d of %d maps are zero: nothing in the layer speaks for the class", zeros, len(needed))
    energy, empty_masks = measure_energy(needed[needed["has_mask"]], placed, config)
    metrics: dict[str, Any] = {
        "method": method,
        "layers": {name: {"layer": one.layer.name, "cells": [one.layer.side] * 2} for name, one in maps.items()},
        "images": len(table),
        "maps": len(needed),
        "zero_maps": zeros,
        "images_with_mask": int(table["has_mask"].sum()),
        "images_with_empty_mask": empty_masks,
        "images_without_ratio": int(table["has_mask"].sum()) - len(energy),
    }
    title = describe(members, maps, params) + (", synthetic images" if provenance["synthetic"] else "")
    with atomic_folder(artifacts.PLOTS / "gradcam") as folder:
        draw_pages(load_examples(examples, placed), folder, title=title)
        write_table(examples, folder / "examples.csv", EXAMPLE_COLUMNS)
        write_table(energy, folder / "energy.csv", ENERGY_COLUMNS)
    write_json(artifacts.METRICS / "gradcam.json", metrics | summarize_energy(energy))


def describe(members: dict[str, Classifier], maps: dict[str, MemberMaps], params: GradcamParams) -> str:
    """The pages' title: the networks, each once, with their layers."""
    networks = {
        f"layer {maps[name].layer.name}, {config.backbone}{' with metadata' if config.needs_metadata else ''}": None
        for name, (_, config) in members.items()
    }
    several = f", mean of {len(members)} members" if len(members) > 1 else ""
    return f"{params.methods[0]} of {' and '.join(networks)}{several}, split 'test'"


def locate(prepared: artifacts.PreparedImages, image_ids: pd.Series) -> np.ndarray:
    """Row in the prepared array, width and height of the original, int64 of shape (N, 3)."""
    rows = prepared.rows_of(image_ids)
    return np.column_stack([rows, prepared.index.loc[rows, ["width", "height"]].to_numpy(dtype=np.int64)])


def measure_energy(table: pd.DataFrame, placed: Placed, config: ClassifierConfig) -> tuple[pd.DataFrame, int]:
    """The energy ratio of each image, those left out in which it is undefined, and how many masks show no lesion."""
    square = {"size": config.size, "fit": config.fit}
    ratios, empty_masks = [], 0
    for image in tqdm(list(table.itertuples()), desc="energy ratio", unit="image", disable=None):
        mask = read_mask(image.image_id, width=image.width, height=image.height)
        lesion = crop_to_square(mask, **square)
        ratios.append(energy_ratio(crop_to_square(placed(image), **square), lesion))
        empty_masks += not lesion.any()
    if table.empty:
        logger.info("no lesion masks in %s: the energy ratio is not measured", artifacts.RAW)
    if empty_masks:
        logger.warning("%d mask(s) have no lesion pixel where the network looks: left out of the energy ratio", empty_masks)
    return table.assign(energy_ratio=np.round(ratios, 6)).dropna(subset=["energy_ratio"]), empty_masks


def load_examples(examples: pd.DataFrame, placed: Placed) -> Iterator[Example]:
    """Each example with its original and its map on the original's pixels."""
    for row in examples.itertuples():
        image = read_image(row.image_id, width=row.width, height=row.height)
        lesion = read_mask(row.image_id, width=row.width, height=row.height) if row.has_mask else None
        title = f"{row.image_id}: {row.kind}\ntruth {row.dx}, predicted {row.predicted}, probability {row.probability:.2f}"
        yield Example(image, placed(row), lesion, title)


if __name__ == "__main__":
    run_stage(main)
