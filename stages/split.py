"""Deal the lesions to training, validation and test, and prove that no lesion crosses.

Reads `split` of `params.yaml`, `data/raw/metadata.csv`, the list of `data/raw/images`, `data/raw/provenance.json` and,
where `split.links` names it, a CSV of image pairs that show the same lesion.
Writes `data/splits/{train,val,test}.csv` and `facts.json`, `metrics/split.json` and
`plots/split/{classes,age,sex,localization}.csv`; nothing before every proof holds.
"""

import logging
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.raw import list_images, read_metadata, read_provenance
from skinlesion.artifacts.splits import SplitFacts, fingerprint, write_splits
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, file_digest, resolve_from_root, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import load_params
from skinlesion.data.splitting import (
    check_classes,
    check_diagnoses,
    check_disjoint,
    check_images,
    class_shares,
    deal,
    merge_lesions,
    read_links,
)
from skinlesion.diagnoses import CLASSES

logger = logging.getLogger(__name__)

AGE_BAND = 5  # years; HAM10000 gives ages in fives


@one_at_a_time("split")
def main() -> None:
    """Deal, prove, then write."""
    params = load_params().split
    metadata, provenance = read_metadata(), read_provenance()
    check_images(metadata, list_images())
    check_diagnoses(metadata)
    metadata, links = apply_links(metadata, params.links)
    splits = deal(metadata, folds=params.folds, validation_folds=params.validation_folds, fold=params.fold, seed=params.seed)
    overlap = check_disjoint(splits)
    deviation = check_classes(splits, max_deviation=params.max_deviation)
    summary = {
        "data": {"source": provenance["source"], "synthetic": provenance["synthetic"]},
        **summarize(splits),
        "largest_deviation_points": round(deviation, 4),
        "overlap": overlap,
        "links": links,
        "fingerprint": fingerprint(splits),
    }
    tables = overview(splits)

    facts = SplitFacts(summary["fingerprint"], provenance["source"], provenance["synthetic"])
    write_splits(splits, facts)
    write_json(METRICS / "split.json", summary)
    with atomic_folder(PLOTS / "split") as folder:
        for name, table in tables.items():
            write_table(table, folder / f"{name}.csv", table.columns)
    sizes = ", ".join(f"{name} {summary['images'][name]} images of {summary['lesions'][name]} lesions" for name in splits)
    logger.info("split: %s; class shares within %.2f points of the whole", sizes, deviation)


def apply_links(metadata: pd.DataFrame, path: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Merge linked lesions; and what is to be recorded of it: pairs in the list, lesions that it made disappear, its sha256."""
    if path is None:
        return metadata, {"pairs": 0, "merges": 0, "sha256": None}
    file = resolve_from_root(path)
    links = read_links(file)
    merged = merge_lesions(metadata, links)
    merges = metadata["lesion_id"].nunique() - merged["lesion_id"].nunique()
    return merged, {"pairs": len(links), "merges": merges, "sha256": file_digest(file, "sha256")}


def summarize(splits: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Images, lesions, classes and missing values of each split, and classes of the whole; shares are 0 to 1."""
    parts = {**splits, "whole": pd.concat(splits.values())}
    return {
        "images": {name: len(frame) for name, frame in splits.items()},
        "lesions": {name: frame["lesion_id"].nunique() for name, frame in splits.items()},
        "class_counts": {name: {dx: int(frame["dx"].eq(dx).sum()) for dx in CLASSES} for name, frame in parts.items()},
        "class_shares": {name: class_shares(frame).round(6).to_dict() for name, frame in parts.items()},
        "missing": {
            name: frame[["age", "sex", "localization"]].replace("unknown", np.nan).isna().sum().to_dict()
            for name, frame in splits.items()
        },
    }


def overview(splits: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """A table a plot; a row a split and value, values that a split lacks included, `share` of the split's images (0 to 1)."""
    return {
        "classes": count_by(splits, "dx", list(CLASSES)),
        "age": count_by({name: frame.assign(age=age_bands(frame["age"])) for name, frame in splits.items()}, "age"),
        "sex": count_by(splits, "sex"),
        "localization": count_by(splits, "localization"),
    }


def age_bands(ages: pd.Series) -> pd.Series:
    """The first year of the band that each age (years, NaN where unknown) lies in, NaN kept as 'unknown'."""
    first = np.floor(ages / AGE_BAND) * AGE_BAND
    return first.astype("Int64").astype(object).where(ages.notna(), "unknown")


def count_by(splits: dict[str, pd.DataFrame], column: str, values: list[Any] | None = None) -> pd.DataFrame:
    """Count the images of each split by a column's value: `split`, the column, `images`, `share`.

    `values` gives the order; without it they are sorted, 'unknown' last.
    """
    if values is None:
        found = {value for frame in splits.values() for value in frame[column]}
        values = [*sorted(found - {"unknown"}), *sorted(found & {"unknown"})]
    rows = []
    for name, frame in splits.items():
        counts = frame[column].value_counts().reindex(values, fill_value=0)
        rows += [(name, value, int(count), round(count / len(frame), 6)) for value, count in counts.items()]
    return pd.DataFrame(rows, columns=["split", column, "images", "share"])


if __name__ == "__main__":
    run_stage(main)
