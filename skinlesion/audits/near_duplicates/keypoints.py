"""Local features of an image: corners and spots of the lesion, and descriptions of them that turn and grow with the image."""

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 200  # pixels of the longer side: every image is brought to it, so that tolerances mean the same for all
FEATURES = 300  # of an image, the strongest ones
CONTRAST = 0.015  # of SIFT; a third of its usual one, since lesions are soft
EDGE = 20.0  # of SIFT; twice its usual one, since streaks and rims identify a lesion
DARK = 50  # grey value below which a corner of the picture is the ring of the dermatoscope
RIM = 13  # pixels around that ring, whose edge is in every picture

# A descriptor is 4 rows x 4 columns of cells with 8 directions; in a mirror the rows swap, and directions turn round.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


@dataclass(frozen=True)
class Keypoints:
    """Up to `FEATURES` local features of an image whose longer side is `SIDE` pixels; the strongest come first.

    position : complex64 (n,), x + iy in pixels. size : float32 (n,), diameter in pixels. angle : float32 (n,), radians.
    descriptors : uint8 (n, 128), square roots of the normalised SIFT histograms times 255.
    width : of the image in pixels.
    """

    position: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    descriptors: np.ndarray
    width: int

    def __len__(self) -> int:
        return len(self.position)

    def mirrored(self) -> "Keypoints":
        """The features of the image mirrored left to right."""
        position = (self.width - 1 - self.position.real) + 1j * self.position.imag
        return Keypoints(
            position.astype(np.complex64), self.size, np.float32(np.pi) - self.angle, self.descriptors[:, _MIRRORED], self.width
        )


def to_gray(image: np.ndarray) -> np.ndarray:
    """Grey values, uint8, of a uint8 RGB image, its longer side brought to `SIDE` pixels."""
    gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    factor = SIDE / max(gray.shape)
    height, width = (max(1, round(factor * length)) for length in gray.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return gray if factor == 1 else cv2.resize(gray, (width, height), interpolation=method)


def inside_ring(gray: np.ndarray) -> np.ndarray:
    """Where a picture is not the dark ring of the dermatoscope or its edge: 255, else 0 (uint8, as `gray`).

    The ring is what is dark and connected with a corner of the picture.
    """
    dark = (cv2.GaussianBlur(gray, (0, 0), 1.5) < DARK).astype(np.uint8)
    _, labels = cv2.connectedComponents(dark)
    corners = set(labels[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()) - {0}
    ring = np.isin(labels, sorted(corners)).astype(np.uint8)
    return 255 * (1 - cv2.dilate(ring, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (RIM, RIM))))


def find_keypoints(gray: np.ndarray) -> Keypoints:
    """Find and describe the local features of an image as `to_gray` gives it.

    SIFT (Lowe, Distinctive image features from scale-invariant keypoints, IJCV 2004) after an equalisation of local contrast,
    with square-rooted descriptors (Arandjelovic and Zisserman, Three things everyone should know, CVPR 2012).
    """
    equalized = cv2.createCLAHE(2.0, (4, 3)).apply(gray)
    sift = cv2.SIFT.create(nfeatures=FEATURES, contrastThreshold=CONTRAST, edgeThreshold=EDGE)
    found, raw = sift.detectAndCompute(equalized, inside_ring(gray))
    if raw is None:
        found, raw = (), np.zeros((0, 128), np.float32)
    order = sorted(range(len(found)), key=lambda row: (-found[row].response, found[row].pt, found[row].angle))[:FEATURES]
    values = np.array([(*found[row].pt, found[row].size, found[row].angle) for row in order], np.float32).reshape(-1, 4)
    histograms = raw[order] / np.maximum(raw[order].sum(axis=1, keepdims=True), 1e-9)
    return Keypoints(
        (values[:, 0] + 1j * values[:, 1]).astype(np.complex64),
        values[:, 2],
        np.deg2rad(values[:, 3]),
        np.rint(255 * np.sqrt(histograms)).astype(np.uint8),
        gray.shape[1],
    )
