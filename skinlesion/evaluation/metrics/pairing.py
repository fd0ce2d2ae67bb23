"""Two classifiers on the same images: how far their metrics lie apart, and how sure that is.

Both are measured in the same bootstrap draws of lesions (`metrics.bootstrap`): what is hard in a draw is hard for both, so the
interval of the difference is narrower than two intervals side by side suggest.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from skinlesion.base.errors import PipelineError, name_some
from skinlesion.config.schema import BootstrapParams
from skinlesion.evaluation.metrics.bootstrap import Measured, percentile_intervals
from skinlesion.evaluation.metrics.tables import metrics_of


class Paired(NamedTuple):
    """Two prediction tables of the same images in the same order."""

    first: pd.DataFrame
    second: pd.DataFrame


def pair(first: pd.DataFrame, second: pd.DataFrame) -> Paired:
    """Bring two prediction tables into one order, that of the first.

    Raises
    ------
    PipelineError
        They do not hold the same images, or not the same lesion and diagnosis for each.
    """
    for one, other, name in ((first, second, "first"), (second, first, "second")):
        alone = one.loc[~one["image_id"].isin(other["image_id"]), "image_id"]
        if len(alone):
            raise PipelineError(
                f"{len(alone)} of {len(one)} images are in the {name} table alone ({name_some(alone)}): only predictions of one "
                "split of the same images can be paired"
            )
    ordered = second.set_index("image_id").loc[first["image_id"]].reset_index()
    for column in ("lesion_id", "dx"):
        odd = first["image_id"].to_numpy()[first[column].to_numpy() != ordered[column].to_numpy()]
        if len(odd):
            raise PipelineError(f"the two tables differ in {column} of {name_some(odd)}: they are not of one data set and split")
    return Paired(first.reset_index(drop=True), ordered)


def p_value(differences: np.ndarray) -> float:
    """Two-sided p of the hypothesis that a difference is 0, from its bootstrap draws of shape (draws,); NaN without a draw.

    Twice the share of draws on the rarer side of 0, draws at 0 on both, one added to count and draws so that it is never 0: the
    level at which the percentile interval just touches 0 (Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 15).
    """
    defined = differences[~np.isnan(differences)]
    if len(defined) == 0:
        return float("nan")
    rarer = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, 2 * (int(rarer) + 1) / (len(defined) + 1))


def compare(paired: Paired, how: BootstrapParams) -> pd.DataFrame:
    """Headline metrics of both tables, their difference, and what the paired bootstrap over lesions says of it.

    Returns
    -------
    A row a metric of `HEADLINE`, then `f1_<class>` a class: `metric, first, second, difference` (second less first),
    `low, high` (percentile interval of the difference), `p` (`p_value`). NaN where a metric is undefined.
    """
    first, second = (Measured.of(metrics_of(table).headline, paired.first["lesion_id"], how) for table in paired)
    apart = second.less(first)
    table = pd.DataFrame({"first": first.values, "second": second.values, "difference": apart.values}).rename_axis("metric")
    table = table.join(pd.DataFrame(percentile_intervals(apart.drawn, how.confidence)).T)
    return table.assign(p={name: p_value(values) for name, values in apart.drawn.items()}).reset_index()
