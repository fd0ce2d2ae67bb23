"""Tables of the pairs of images that the search for near-duplicates verified."""

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import pandas as pd

from skinlesion.artifacts.splits import LINK_COLUMNS, SPLIT_NAMES
from skinlesion.audits.near_duplicates.search import Verified
from skinlesion.config.audits import NearDuplicatesParams

PAIRS = Path("data/extras/near_duplicates")
PAIR_COLUMNS: tuple[str, ...] = (
    *LINK_COLUMNS,
    *("lesion_id_a", "lesion_id_b", "dx_a", "dx_b", "same_dx"),
    *("score", "inliers", "correlation", "zoom", "turn", "mirrored", "accepted"),
)
SCORE_COLUMNS: tuple[str, ...] = ("pairs", "score", "share")
GROUPS = {"siblings": "one lesion id", "same": "two ids, one diagnosis", "different": "two ids, two diagnoses"}
SCORES: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40, 60, 80)  # at which the plot has a point


def describe_pairs(verified: Iterable[Verified], metadata: pd.DataFrame) -> pd.DataFrame:
    """A row a pair, the highest score first: `PAIR_COLUMNS` but `accepted`, and `a` and `b`, rows of `metadata`.

    `score` is the inliers times the correlation, where that is positive: matches alone can be of hairs or a ruler, and
    grey values alone of any two round spots.
    """
    table = pd.DataFrame(list(verified), columns=Verified._fields)
    for end in ("a", "b"):
        rows = metadata.iloc[table[end]]
        for column in ("image_id", "lesion_id", "dx"):
            table[f"{column}_{end}"] = rows[column].to_numpy()
    table["same_dx"] = table["dx_a"] == table["dx_b"]
    table["score"] = (table["inliers"] * table["correlation"].clip(lower=0)).round(3)
    table[["correlation", "zoom", "turn"]] = table[["correlation", "zoom", "turn"]].astype(float).round(4)
    return table.sort_values(["score", "inliers", *LINK_COLUMNS], ascending=[False, False, True, True], ignore_index=True)


def accept(table: pd.DataFrame, params: NearDuplicatesParams) -> pd.DataFrame:
    """The table with the column `accepted`."""
    enough = table["inliers"].ge(params.min_inliers) & table["correlation"].ge(params.min_correlation)
    return table.assign(accepted=enough)


def count_crossing(pairs: pd.DataFrame, splits: dict[str, pd.Series]) -> dict[str, int]:
    """How many pairs have their images in two splits, by the splits' names, as {'train-test': 1}."""
    of = {image_id: name for name, images in splits.items() for image_id in images}
    ends = [{of[pair.image_id_a], of[pair.image_id_b]} for pair in pairs.itertuples()]
    return {f"{one}-{other}": ends.count({one, other}) for one, other in combinations(SPLIT_NAMES, 2)}


def score_shares(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """For the plot: the share of the pairs of each kind (`GROUPS`) that have a score or more; columns `SCORE_COLUMNS`."""
    others = tables["others"]
    kinds = {"siblings": tables["siblings"], "same": others[others["same_dx"]], "different": others[~others["same_dx"]]}
    rows = [
        {"pairs": GROUPS[kind], "score": score, "share": float(table["score"].ge(score).mean())}
        for kind, table in kinds.items()
        if len(table)
        for score in SCORES
    ]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
