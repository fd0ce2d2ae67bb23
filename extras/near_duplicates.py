"""Look for pairs of images under two lesion ids that show one lesion: `dvc repro extras/dvc.yaml:near-duplicates`.

Reads   section `near_duplicates` of params.yaml; data/raw; data/splits, to say which pairs cross it; data/prepared, of which its
        metrics are (by digest)
Writes  data/extras/near_duplicates/pairs.csv (every pair whose features agree on a geometry, best first) and links.csv (the
        accepted ones of one diagnosis, as `split.links` takes them); metrics/extras/near_duplicates.json;
        plots/extras/near_duplicates/scores.csv

Lesion ids are those of the metadata, whatever `split.links` has merged: pairs that are linked stay in the list, which
thus does not depend on the split. To use it, look at the pairs, copy links.csv to a file of your own (an output of this stage is
not there before the split in a fresh workspace) and set `split.links` to it.
"""

import logging
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from skinlesion.artifacts.paths import PLOTS
from skinlesion.artifacts.raw import read_metadata, read_provenance
from skinlesion.artifacts.splits import LINK_COLUMNS, SPLIT_NAMES, read_split
from skinlesion.artifacts.tables import write_table
from skinlesion.audits.findings import write_extra
from skinlesion.audits.near_duplicates.search import Candidates, describe_images, find_candidates, sibling_pairs, verify
from skinlesion.audits.near_duplicates.tables import (
    PAIR_COLUMNS,
    PAIRS,
    SCORE_COLUMNS,
    accept,
    count_crossing,
    describe_pairs,
    score_shares,
)
from skinlesion.base.cores import available_cores
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.audits import NearDuplicatesParams
from skinlesion.config.params import load_params
from skinlesion.data.splitting import check_images

logger = logging.getLogger(__name__)


@one_at_a_time("near-duplicates")
def main() -> None:
    params = load_params().near_duplicates
    metadata = read_metadata().sort_values("image_id", ignore_index=True)
    check_images(metadata, metadata["image_id"])
    workers = available_cores()
    keypoints = describe_images(metadata["image_id"], workers=workers)
    options: dict[str, Any] = {"mirrored": params.mirrored, "workers": workers}
    with threadpool_limits(1):  # the threads are ours; those of matrix products would only wait for each other
        found = find_candidates(keypoints, metadata["lesion_id"], neighbors=params.neighbors, seed=params.seed, **options)
        verified = {
            "siblings": verify(sibling_pairs(metadata["lesion_id"]), keypoints, metadata["image_id"], **options),
            "others": verify(found.others, keypoints, metadata["image_id"], **options),
        }
    tables = {name: accept(describe_pairs(fits, metadata), params) for name, fits in verified.items()}
    others = tables["others"]
    links = others[others["accepted"] & others["same_dx"]]
    content = summarize(tables, found, params)
    with atomic_folder(PAIRS) as folder:
        write_table(others[others["inliers"] > 0], folder / "pairs.csv", PAIR_COLUMNS)
        write_table(links, folder / "links.csv", LINK_COLUMNS)
    with atomic_folder(PLOTS / "extras" / "near_duplicates") as folder:
        write_table(score_shares(tables), folder / "scores.csv", SCORE_COLUMNS)
    write_extra("near_duplicates", content, of=["images"])
    report(content, others)


def summarize(tables: dict[str, pd.DataFrame], found: Candidates, params: NearDuplicatesParams) -> dict[str, Any]:
    """The metrics: what was found, how much of what is known was, and how many false ones are to be expected."""
    siblings, others = tables["siblings"], tables["others"]
    provenance, accepted = read_provenance(), others[others["accepted"]]
    linked = accepted[accepted["same_dx"]]
    reached = pd.MultiIndex.from_frame(siblings[["a", "b"]]).isin(found.siblings)
    different = others[~others["same_dx"]]
    rate = share(different["accepted"])
    same = int(others["same_dx"].sum())
    return {
        "data": {"source": provenance["source"], "synthetic": provenance["synthetic"]},
        "images": found.images,
        "thresholds": {"min_inliers": params.min_inliers, "min_correlation": params.min_correlation},
        "candidates": {"pairs": len(others), "same_dx": same, "different_dx": len(different)},
        "accepted": {
            "pairs": len(accepted),
            "same_dx": len(linked),
            "different_dx": len(accepted) - len(linked),
            "mirrored": int(accepted["mirrored"].sum()),
            "by_dx": linked["dx_a"].value_counts().sort_index().to_dict(),
        },
        "crossing_the_split": count_crossing(linked, {name: read_split(name)["image_id"] for name in SPLIT_NAMES}),
        "known_siblings": {
            "pairs": len(siblings),
            "reached": share(reached),
            "verified": share(siblings["accepted"]),
            "recall_on_known_siblings": share(reached & siblings["accepted"].to_numpy()),
        },
        "false_matches": {
            "accepted_share_of_different_dx": rate,
            "expected_among_same_dx": None if rate is None else rate * same,
            "most_inliers_of_different_dx": int(different["inliers"].max()) if len(different) else None,
        },
    }


def share(flags: pd.Series | np.ndarray) -> float | None:
    """Share of true values; None of nothing."""
    return float(flags.mean()) if len(flags) else None


def report(content: dict[str, Any], others: pd.DataFrame) -> None:
    """Say what was found; different diagnoses loudly, since one of the two is wrong, or the match is."""
    accepted, known = content["accepted"], content["known_siblings"]
    crossing = sum(content["crossing_the_split"].values())
    logger.info("near-duplicates: %d pair(s) of one diagnosis, %d of them across the split", accepted["same_dx"], crossing)
    if known["pairs"]:
        logger.info("recall on %d known pairs: %.3f", known["pairs"], known["recall_on_known_siblings"])
    for pair in others[others["accepted"] & ~others["same_dx"]].itertuples():
        warning = "%s (%s) and %s (%s) match: one lesion under two diagnoses, or a false match; look at them, they are not in %s"
        logger.warning(warning, pair.image_id_a, pair.dx_a, pair.image_id_b, pair.dx_b, "links.csv")


if __name__ == "__main__":
    run_stage(main)
