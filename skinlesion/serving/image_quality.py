"""When not to trust an answer because of the picture: too small, blurred, badly exposed, or hardly any skin in it.

Everything but the size is measured on the middle two thirds of each side, where the lesion is and a dermatoscope's dark corners
are not, of the image at `LONG_SIDE` pixels. Each limit is such that about one HAM10000 image in a thousand is beyond it (of a
random 2,500 at 200 x 150 px): they tell pictures unlike those that the classifier was trained on, and no more. A Gaussian blur
of 1.5 px at that size, 4.5 px at 600 px, is noticed in over nineteen of twenty.
"""

import numpy as np
from PIL import Image

LONG_SIDE = 200  # pixels
MIN_LAPLACIAN_VARIANCE = 8.0  # of grey values 0 to 255; quantile .001 of HAM10000 is 8.7, the median 61
MIN_MEAN, MAX_MEAN = 50.0, 215.0  # of grey values; quantiles .001 and .999 are 46 and 216
MAX_WHITE_SHARE = 0.05  # of pixels that are white in all channels; quantile .999 is .002
MIN_SKIN_SHARE = 0.35  # of pixels of skin's hue; quantile .001 is .33
WHITE = 250  # from which on a channel says nothing more


def quality_warnings(image: Image.Image, *, size: int) -> list[str]:
    """Sentences on what is wrong with a picture, none where nothing is.

    image : RGB. size : side of the network's square, pixels.

    Sharpness is the variance of the Laplacian (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000).
    Skin's hue is red before green and Cr above 131 (ITU-R BT.601): tried on HAM10000 alone, whose skin is mostly fair. It
    is meant to tell skin from cloth, walls and plants, and does not tell it from wood.
    """
    warnings = []
    if min(image.size) < size:
        warnings.append(
            f"The image is small: {image.width} x {image.height} pixels, and the classifier looks at {size} x {size}, so it sees "
            "an enlarged copy without detail."
        )
    middle = _middle(image)
    grey = middle @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    red, green, blue = np.moveaxis(middle, -1, 0)
    mean, white = float(grey.mean()), float((np.minimum(np.minimum(red, green), blue) >= WHITE).mean())  # min(axis=2) is slow
    if mean < MIN_MEAN:
        warnings.append("The image is under-exposed: it is darker than nearly all images that the limits were taken from.")
    elif mean > MAX_MEAN or white > MAX_WHITE_SHARE:
        warnings.append("The image is over-exposed: bright areas have lost their structure.")
    if laplacian_variance(grey) < MIN_LAPLACIAN_VARIANCE:
        warnings.append("The image is blurred: fine structures, on which the classifier relies, are not visible.")
    if skin_share(middle) < MIN_SKIN_SHARE:
        warnings.append("Little of the image has the colour of skin: is it a close-up of a skin lesion?")
    return warnings


def _middle(image: Image.Image) -> np.ndarray:
    """The middle of the image at `LONG_SIDE` pixels, float32 RGB (H, W, 3), 0 to 255."""
    # 8 pixels at least, so that a strip still has a middle.
    width, height = (max(8, round(side * LONG_SIDE / max(image.size))) for side in image.size)
    left, top = width // 6, height // 6
    # Only what is looked at is resized: most of an image's time here would be that of its borders.
    scale_x, scale_y = image.width / width, image.height / height
    box = (left * scale_x, top * scale_y, (width - left) * scale_x, (height - top) * scale_y)
    small = image.resize((width - 2 * left, height - 2 * top), Image.Resampling.BILINEAR, box=box)
    return np.asarray(small, dtype=np.float32)


def laplacian_variance(grey: np.ndarray) -> float:
    """Variance of the four-neighbour Laplacian of grey values, float (H, W), at least 3 x 3."""
    inner = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(inner.var())


def skin_share(pixels: np.ndarray) -> float:
    """Share of the pixels, float RGB (..., 3) from 0 to 255, that have skin's hue."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    red_difference = 128 + 0.5 * red - 0.418688 * green - 0.081312 * blue
    return float(((red >= green) & (red_difference > 131)).mean())
