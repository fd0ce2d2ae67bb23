"""How an image of any shape fits the network's square, and which part of it the square shows.

`fit` is one of: `squash`, the whole image, its aspect lost; `crop`, the largest centered square; `pad`, the whole image in
its aspect, black bars around it.
"""

from PIL import Image

from skinlesion.config.schema import Fit


def _pasted_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Where `pad` puts the image in the square: left, top, width, height in pixels of the square."""
    scale = size / max(width, height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (size - inner_width) // 2, (size - inner_height) // 2, inner_width, inner_height


def covered_box(width: int, height: int, *, size: int, fit: Fit) -> tuple[float, float, float, float]:
    """The rectangle of the original that the whole square shows: left, top, right, bottom in original pixels.

    With `pad` it reaches beyond the original on two sides.
    """
    if fit == "squash":
        return 0.0, 0.0, float(width), float(height)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
    left, top, inner_width, inner_height = _pasted_box(width, height, size)
    per_column, per_row = width / inner_width, height / inner_height
    return -left * per_column, -top * per_row, (size - left) * per_column, (size - top) * per_row


def fit_image(image: Image.Image, *, size: int, fit: Fit) -> Image.Image:
    """Resize an image into the square of `size` x `size` pixels, antialiased (Pillow's bilinear filter), mode kept."""
    if fit == "pad":
        left, top, inner_width, inner_height = _pasted_box(*image.size, size)
        square = Image.new(image.mode, (size, size))
        square.paste(image.resize((inner_width, inner_height), Image.Resampling.BILINEAR), (left, top))
        return square
    box = covered_box(*image.size, size=size, fit=fit)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
