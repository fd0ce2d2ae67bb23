"""scikit-learn's stratified dealing of groups to folds, some ten times faster for hundreds of thousands of groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


class FasterStratifiedGroupKFold(StratifiedGroupKFold):
    """Deals as `StratifiedGroupKFold` does, to the last image: the same arithmetic, for all folds at once.

    For each group scikit-learn asks fold after fold how evenly the classes would lie if it went there, in some forty calls of
    NumPy. Should a later version no longer call this method, it deals as fast as it does, and to the same folds.
    """

    def _find_best_fold(self, y_counts_per_fold: np.ndarray, y_cnt: np.ndarray, group_y_counts: np.ndarray) -> Any:
        """The fold that leaves the classes most evenly dealt, of equal ones that with the fewest images.

        y_counts_per_fold : float64 (folds, classes), images dealt so far. y_cnt : int (classes,), images in all.
        group_y_counts : float64 (classes,), images of the group that is to be dealt.
        """
        folds = len(y_counts_per_fold)
        tried = np.repeat(y_counts_per_fold[None], folds, axis=0)  # of each fold, the counts if the group went there
        own = np.arange(folds)
        tried[own, own] += group_y_counts
        tried /= y_cnt
        # What np.std and np.mean compute, without what they do around it.
        tried -= np.add.reduce(tried, axis=1, keepdims=True) / folds
        deviations = np.sqrt(np.add.reduce(tried * tried, axis=1) / folds)
        unevenness = (np.add.reduce(deviations, axis=1) / len(y_cnt)).tolist()
        images = np.add.reduce(y_counts_per_fold, axis=1).tolist()
        best, least, fewest = None, np.inf, np.inf
        for fold in range(folds):
            close = abs(unevenness[fold] - least) <= 1e-8 + 1e-5 * abs(least)  # as np.isclose
            if unevenness[fold] < least or (close and images[fold] < fewest):
                best, least, fewest = fold, unevenness[fold], images[fold]
        return best
