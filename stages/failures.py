"""List what the classifier gets badly wrong on test: every missed melanoma and every confident error, with metadata.

Reads   section `failures` of params.yaml; data/predictions/test.csv; models/operating_points.json
Writes  data/failures/failures.csv (a row an image, columns: skinlesion/evaluation/analysis/failures.py); metrics/failures.json
        (how many)

It looks and chooses nothing: which image failed is known only because test was measured.
"""

import logging

from skinlesion.artifacts.paths import METRICS
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import load_params
from skinlesion.evaluation.analysis.failures import COLUMNS, FAILURES, count_failures, list_failures
from skinlesion.evaluation.results.decisions import read_operating_points
from skinlesion.evaluation.results.predictions import read_predictions

logger = logging.getLogger(__name__)


@one_at_a_time("failures")
def main() -> None:
    params = load_params().failures
    table, points = read_predictions("test"), read_operating_points()
    failures = list_failures(table, points, min_confidence=params.min_confidence)
    counted = count_failures(failures, table, points)
    with atomic_folder(FAILURES) as folder:
        write_table(failures, folder / "failures.csv", COLUMNS)
    write_json(METRICS / "failures.json", {"split": "test", "min_confidence": params.min_confidence, **counted})
    missed, confident = counted["missed_melanomas"], counted["confident_errors"]
    logger.info(
        "missed melanomas: %d of %d images; errors with confidence of %g or more: %d of %d",
        missed["images"], counted["melanomas"]["images"], params.min_confidence, confident["images"], counted["errors"],
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
