"""Classifiers that see little, for what a network's figures are worth: metadata alone, or the image's colours alone."""

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skinlesion.diagnoses import CLASSES

CHUNK = 512  # images whose colours are counted at a time


def color_histograms(images: np.ndarray, rows: np.ndarray, *, bins: int) -> np.ndarray:
    """Share of each image's pixels in each cell of the RGB cube, float32 (rows, bins ** 3).

    images : uint8 (N, height, width, 3). rows : int (rows,), positions in it. bins : a channel, 2 to 16, of equal width.
    """
    counts = [_count(images[rows[start : start + CHUNK]], bins) for start in range(0, len(rows), CHUNK)]
    shares: np.ndarray = np.concatenate(counts) / (images.shape[1] * images.shape[2])
    return shares


def _count(images: np.ndarray, bins: int) -> np.ndarray:
    cells = images.astype(np.int64) * bins // 256
    numbers = (cells[..., 0] * bins + cells[..., 1]) * bins + cells[..., 2]
    numbers = numbers.reshape(len(images), -1) + np.arange(len(images))[:, None] * bins**3
    return np.bincount(numbers.ravel(), minlength=len(images) * bins**3).reshape(len(images), bins**3).astype(np.float32)


def metadata_model(*, seed: int) -> ClassifierMixin:
    """Gradient-boosted trees on age, sex and site (`skinlesion.artifacts.patients.encode_metadata`)."""
    return HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, min_samples_leaf=20, random_state=seed)


def color_model() -> ClassifierMixin:
    """Logistic regression on the square roots of colour histograms (Hellinger), standardised."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))


def fit_predict(model: ClassifierMixin, train: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Fit on features (images, features) and labels, int (images,); probabilities, float64 (wanted images, classes).

    A class that is absent from the training list has probability 0.
    """
    fitted = model.fit(train, labels)
    probabilities = np.zeros((len(wanted), len(CLASSES)))
    probabilities[:, fitted.classes_] = fitted.predict_proba(wanted)
    return probabilities
