"""Measure the predictions of test by group: for whom the classifier works, and for whom it does not.

Reads   params `subgroups` and `bootstrap`; data/predictions/test.csv; data/raw/metadata.csv for the acquisition source, if it
        has one
Writes  metrics/subgroups.json (of all images, of histologically proven ones alone, the worst group of each metric);
        plots/subgroups/groups.csv (every group with its size and intervals; small ones are flagged, not hidden)
"""

import logging

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.raw import read_metadata
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import load_params
from skinlesion.evaluation.analysis.subgroups import (
    COLUMNS,
    SOURCE,
    assign_groups,
    flag_small,
    measure_groups,
    measure_table,
    worst_groups,
)
from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.evaluation.results.predictions import read_predictions

HISTOLOGY = "histo"

logger = logging.getLogger(__name__)


@one_at_a_time("subgroups")
def main() -> None:
    params, how = load_params().subgroups, load_params().bootstrap
    table, metadata = read_predictions("test"), read_metadata()
    if SOURCE in metadata.columns:
        table = table.merge(metadata[["image_id", SOURCE]], on="image_id", how="left", validate="one_to_one")
    rows = measure_groups(table, assign_groups(table, starts=list(params.age_bands)), how)
    rows["small"] = flag_small(rows, min_lesions=params.min_lesions, min_melanomas=params.min_melanomas)
    proven = table[table["dx_type"] == HISTOLOGY]
    worst = worst_groups(rows)
    content = {
        "split": "test",
        "bootstrap": describe_draws(how),
        "all": measure_table(table, how),
        "histology_only": measure_table(proven, how) if len(proven) else None,
        "worst": worst,
    }
    with atomic_folder(PLOTS / "subgroups") as folder:
        write_table(rows, folder / "groups.csv", COLUMNS)
    write_json(METRICS / "subgroups.json", content)
    for metric in ("macro_auc", "mel_sensitivity"):
        if group := worst[metric]:
            place = f"{group['attribute']} {group['group']} ({group['lesions']} lesions)"
            logger.info("lowest %s: %.3f (%.3f to %.3f) in %s", metric, group["value"], group["low"], group["high"], place)


if __name__ == "__main__":
    run_stage(main)
