"""Show where the network found the evidence for what it predicted, and measure how far that can be believed.

Reads `models/classifier`, `data/predictions`, `data/prepared`, `data/raw` (images, masks where there are any, provenance) and
the params `gradcam`, `bootstrap` and `machine`. Everything is of one split, `gradcam.split`, and of the class that the ensemble
predicts; a map is the mean of the members' maps, of the images as they are, without test-time views. Of the first of
`gradcam.methods` it writes

- `plots/gradcam/cases.csv`: the cases that are shown, in their order: all missed melanomas, the most confident other errors, the
  least confident correct predictions, and typical correct ones of each class (`skinlesion.explanation.cam.cases`);
- `plots/gradcam/mel_1.png`, `mel_2.png`, ...: their pages, a set for each true diagnosis, on errors with the map of the true
  class beside that of the predicted one;
- `plots/gradcam/index.png`, `index.html`: what there is on which page, as a picture for DVC and as a page that links to them;
- `plots/gradcam/energy.csv`: an energy ratio (`cam.energy`) for every image measured that has a mask, but for those
  whose ratio is undefined (no lesion pixel in the mask, or a map that is zero everywhere);

and of every method (`skinlesion.explanation.cam.faithfulness` says what is measured):

- `plots/gradcam/faithfulness.csv`, `groups.csv`, `curves.csv`, `sanity.csv`: means that the plots show (`groups.csv` of the first
  method alone); `images.csv`: the figures of each image;
- `metrics/gradcam.json`: method and layers, counts, and the energy ratios of the first method in summary, null where the source
  has no masks; below `faithfulness` every method's measures with intervals, by class and outcome, and the sanity check.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.raw import RAW, read_provenance
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS, write_table
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.devices import choose_device
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.evaluation import GradcamParams
from skinlesion.config.params import load_params
from skinlesion.config.schema import MachineParams
from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.evaluation.results.predictions import read_predictions
from skinlesion.explanation.cam import tables
from skinlesion.explanation.cam.cases import choose_cases, judge_predictions
from skinlesion.explanation.cam.energy import summarize_energy
from skinlesion.explanation.cam.faithfulness import Faithfulness, measure_methods
from skinlesion.explanation.cam.gallery import write_gallery
from skinlesion.explanation.cam.members import count_zero_maps, find_layers
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.explanation.cam.subject import Subject
from skinlesion.explanation.cam.summary import layers_of, summarize
from skinlesion.model.classifier import check_prepared, load_ensemble

logger = logging.getLogger(__name__)

GRADIENTS = 4  # times the memory of an image that is predicted has one whose map is made
METADATA_COLUMNS = ("age", "sex", "localization")
ENERGY_COLUMNS = ("image_id", "dx", "outcome", "energy_ratio")


@one_at_a_time("gradcam")
def main() -> None:
    """Compute the maps, measure them, and draw the cases."""
    whole = load_params()
    params, how = whole.gradcam, whole.bootstrap
    keep_freed_memory()
    synthetic = read_provenance()["synthetic"]
    subject = load_subject(params, whole.machine)
    # What cannot be used is refused before anything is measured.
    layers = find_layers(subject.members, params.methods, params.layer)
    for method, found in layers.items():
        logger.info("%s: %s", method, ", ".join(f"{member} '{each.name}'" for member, each in found.items()))
    cases = choose_cases(subject.table, **params.model_dump(include={"confident_errors", "unsure_correct", "typical_correct"}))
    placed, placed_truth = subject.of(cases).placed("predicted"), subject.of(cases[cases["outcome"] == "wrong"]).placed("dx")
    maps = subject.describe_maps(layers[subject.options.method])
    title = f"{maps}, split '{params.split}'{', synthetic images' if synthetic else ''}"
    with atomic_folder(PLOTS / "gradcam") as folder, ThreadPoolExecutor(1) as pool:
        # Pages are drawn while torch computes, which leaves the interpreter to them.
        drawn = pool.submit(
            write_gallery, cases, folder, placed=placed, placed_truth=placed_truth, title=title, synthetic=synthetic
        )
        measured = measure_methods(
            subject,
            params.methods,
            images=params.faithfulness_images,
            perturbation_images=params.perturbation_images,
            steps=params.deletion_steps,
        )
        drawn.result()
        summary = summarize(measured, subject.table, how)
        first = measured[subject.options.method]
        energy = subject.table.iloc[first.positions].assign(energy_ratio=first.figures["energy"].to_numpy())
        write_table(energy.dropna(subset=["energy_ratio"]), folder / "energy.csv", ENERGY_COLUMNS)
        tables.write_tables(measured, summary, subject.table, folder)
    metrics: dict[str, Any] = {
        "method": subject.options.method,
        "layers": layers_of(first),
        **count_maps(first, subject.table, energy),
        **summarize_energy(energy, how),
        "faithfulness": {"split": params.split, "bootstrap": describe_draws(how), **summary},
    }
    write_json(METRICS / "gradcam.json", metrics)


def load_subject(params: GradcamParams, machine: MachineParams) -> Subject:
    """Classifiers, images and the judged predictions of the split; its maps are of the first method."""
    prepared, members = read_prepared(), load_ensemble()
    for classifier in members.values():
        check_prepared(prepared, classifier.config)
    predictions = read_predictions(params.split)
    table = judge_predictions(predictions).join(predictions[[*METADATA_COLUMNS, *PROBABILITY_COLUMNS]])
    table["row"] = prepared.rows_of(table["image_id"])
    for side in ("width", "height"):
        table[side] = prepared.index.loc[table["row"], side].to_numpy(dtype=np.int64)
    device, batch_size = choose_device(machine.device), max(1, machine.batch_size // GRADIENTS)
    options = MapOptions(params.methods[0], device, params.layer, batch_size=batch_size, samples=params.samples)
    return Subject(members, prepared.images, table, options)


def count_maps(measured: Faithfulness, table: pd.DataFrame, energy: pd.DataFrame) -> dict[str, int]:
    """Images, maps and masks, and a warning where some of them say nothing."""
    zeros = count_zero_maps(list(measured.maps.values()))
    if zeros:
        logger.warning("%d of %d maps are zero: nothing in the layer speaks for the class", zeros, len(measured.positions))
    if not measured.masks:
        logger.info("no lesion masks in %s: the energy ratio is not measured", RAW)
    if measured.empty_masks:
        logger.warning(
            "%d mask(s) have no lesion pixel where the network looks: left out of the energy ratio", measured.empty_masks
        )
    return {
        "images": len(table),
        "maps": len(measured.positions),
        "zero_maps": zeros,
        "images_with_mask": measured.masks,
        "images_with_empty_mask": measured.empty_masks,
        "images_without_ratio": measured.masks - int(energy["energy_ratio"].notna().sum()),
    }


if __name__ == "__main__":
    run_stage(main)
