"""Show where the network found the evidence for what it predicted.

Reads `models/classifier`, `data/predictions/test.csv`, `data/prepared`, `data/raw` (images, masks where there are any,
provenance) and the section `gradcam` of `params.yaml`. Writes, with maps of the predicted class:

- `plots/gradcam/examples.png`: a page of examples (further pages `examples_2.png`, ... where one is not enough), errors
  first, missed melanomas before other errors, then correct predictions of each class, the most confident first;
- `plots/gradcam/examples.csv`: the same examples as a table;
- `plots/gradcam/energy.csv`: an energy ratio (`skinlesion.cam.energy`) for every test image with a mask, but for those
  whose ratio is undefined (no lesion pixel in the mask, or a map that is zero everywhere);
- `metrics/gradcam.json`: method, layer, counts, and the energy ratios in summary, null where the source has no masks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from skinlesion import artifacts
from skinlesion.cam.energy import crop_to_square, energy_ratio, summarize_energy
from skinlesion.cam.examples import choose_examples, judge_predictions
from skinlesion.cam.layers import find_layer
from skinlesion.cam.maps import compute_maps
from skinlesion.cam.pages import Example, draw_pages
from skinlesion.cam.receptive_field import Centers
from skinlesion.classifier import ClassifierConfig, load_classifier
from skinlesion.devices import choose_device
from skinlesion.errors import run_stage
from skinlesion.files import atomic_folder, write_json
from skinlesion.geometry import map_to_original
from skinlesion.inference import check_prepared
from skinlesion.originals import read_image, read_mask
from skinlesion.params import load_params
from skinlesion.tables import write_table

logger = logging.getLogger(__name__)

SEED = 0  # of the noise of SmoothGradCAMpp
EXAMPLE_COLUMNS = ("position", "image_id", "lesion_id", "dx", "predicted", "probability", "kind")
ENERGY_COLUMNS = ("image_id", "dx", "outcome", "energy_ratio")


def main() -> None:
    """Compute the maps that are needed, measure those with a mask, and draw the examples."""
    params = load_params().gradcam
    prepared, provenance = artifacts.read_prepared(), artifacts.read_provenance()
    model, config = load_classifier()
    check_prepared(prepared, config)
    table = judge_predictions(artifacts.read_predictions("test"))
    table[["row", "width", "height"]] = locate(prepared, table["image_id"])
    table["has_mask"] = [artifacts.mask_path(image_id).exists() for image_id in table["image_id"]]
    examples = choose_examples(table, max_errors=params.max_errors, correct_per_class=params.correct_per_class)

    layer = find_layer(model, params.layer, size=config.size)
    logger.info("%s of layer '%s', %d x %d cells", params.method, layer.name, layer.side, layer.side)
    needed = table[table["has_mask"] | table["image_id"].isin(examples["image_id"])]
    maps = compute_maps(
        model,
        config,
        prepared.images,
        [config.classes.index(dx) for dx in needed["predicted"]],
        method=params.method,
        layer=layer.name,
        device=choose_device(params.device),
        batch_size=params.batch_size,
        seed=SEED,
        rows=needed["row"].to_numpy(),
        progress=True,
    )
    map_of = dict(zip(needed["image_id"], maps, strict=True))
    zero_maps = int((maps.max(axis=(1, 2), initial=0) == 0).sum())
    if zero_maps:
        logger.warning("%d of %d maps are zero: nothing in layer '%s' speaks for the class", zero_maps, len(maps), layer.name)

    energy, empty_masks = measure_energy(needed[needed["has_mask"]], map_of, config, centers=layer.centers)
    metrics: dict[str, Any] = {
        "method": params.method,
        "layer": layer.name,
        "cells": [layer.side, layer.side],
        "images": len(table),
        "maps": len(maps),
        "zero_maps": zero_maps,
        "images_with_mask": int(table["has_mask"].sum()),
        "images_with_empty_mask": empty_masks,
        "images_without_ratio": int(table["has_mask"].sum()) - len(energy),
    }
    title = f"{params.method} of layer {layer.name}, {config.backbone}, split 'test'"
    title += ", synthetic images" if provenance["synthetic"] else ""
    with atomic_folder(artifacts.PLOTS / "gradcam") as folder:
        draw_pages(load_examples(examples, map_of, config, centers=layer.centers), folder, title=title)
        write_table(examples, folder / "examples.csv", EXAMPLE_COLUMNS)
        write_table(energy, folder / "energy.csv", ENERGY_COLUMNS)
    write_json(artifacts.METRICS / "gradcam.json", metrics | summarize_energy(energy))


def locate(prepared: artifacts.PreparedImages, image_ids: pd.Series) -> np.ndarray:
    """Row in the prepared array, width and height of the original, int64 of shape (N, 3)."""
    rows = prepared.rows_of(image_ids)
    return np.column_stack([rows, prepared.index.loc[rows, ["width", "height"]].to_numpy(dtype=np.int64)])


def measure_energy(
    table: pd.DataFrame, map_of: dict[str, np.ndarray], config: ClassifierConfig, *, centers: Centers
) -> tuple[pd.DataFrame, int]:
    """The energy ratio of each image, those left out in which it is undefined, and how many masks show no lesion."""
    square = {"size": config.size, "fit": config.fit}
    ratios, empty_masks = [], 0
    for image in tqdm(list(table.itertuples()), desc="energy ratio", unit="image", disable=None):
        mask = read_mask(image.image_id, width=image.width, height=image.height)
        lesion = crop_to_square(mask, **square)
        placed = map_to_original(map_of[image.image_id], image.width, image.height, centers=centers, **square)
        ratios.append(energy_ratio(crop_to_square(placed, **square), lesion))
        empty_masks += not lesion.any()
    if table.empty:
        logger.info("no lesion masks in %s: the energy ratio is not measured", artifacts.RAW)
    if empty_masks:
        logger.warning("%d mask(s) have no lesion pixel where the network looks: left out of the energy ratio", empty_masks)
    return table.assign(energy_ratio=np.round(ratios, 6)).dropna(subset=["energy_ratio"]), empty_masks


def load_examples(
    examples: pd.DataFrame, map_of: dict[str, np.ndarray], config: ClassifierConfig, *, centers: Centers
) -> Iterator[Example]:
    """Each example with its original and its map on the original's pixels."""
    square = {"size": config.size, "fit": config.fit}
    for row in examples.itertuples():
        image = read_image(row.image_id, width=row.width, height=row.height)
        heat = map_to_original(map_of[row.image_id], row.width, row.height, centers=centers, **square)
        lesion = read_mask(row.image_id, width=row.width, height=row.height) if row.has_mask else None
        title = f"{row.image_id}: {row.kind}\ntruth {row.dx}, predicted {row.predicted}, probability {row.probability:.2f}"
        yield Example(image, heat, lesion, title)


if __name__ == "__main__":
    run_stage(main)
