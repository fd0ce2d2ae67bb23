"""The contract between stages: what comes back is what was written, and what is damaged is refused by name."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import SplitFacts, read_split, read_split_facts, write_splits
from skinlesion.artifacts.tables import METADATA_COLUMNS
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS, read_predictions, write_predictions
from tests.conftest import refuses


def prepared(folder: Path, *, images: np.ndarray | None = None, ids: tuple[str, ...] = ("b", "a", "c")) -> Path:
    """Write a prepared folder by hand."""
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3) if images is None else images)
    rows = pd.DataFrame({"image_id": ids, "width": 200, "height": 150, "fit": "crop", "color_constancy": "none"})
    rows.to_csv(folder / "index.csv", index=False)
    return folder


def predictions(rows: int = 3) -> pd.DataFrame:
    """A prediction table of melanomas with one certain class."""
    frame = pd.DataFrame({"image_id": [f"i{n}" for n in range(rows)], "lesion_id": "l", "dx": "mel", "age": np.nan})
    frame = frame.assign(sex="male", localization="", dx_type="histo")
    return frame.assign(**{f"logit_{dx}": 0.5 for dx in CLASSES}, **{f"probability_{dx}": float(dx == "nv") for dx in CLASSES})


def test_splits_come_back_as_written(workspace: Path, metadata: pd.DataFrame) -> None:
    splits = {"train": metadata[:100], "val": metadata[100:130], "test": metadata[130:]}
    facts = SplitFacts("0123", "sample", True)
    write_splits(splits, facts)
    assert read_split_facts() == facts
    for name, frame in splits.items():
        expected = frame.reset_index(drop=True).replace({"sex": {"": "unknown"}})[list(METADATA_COLUMNS)]
        pd.testing.assert_frame_equal(read_split(name), expected, check_dtype=False)
    write_splits({**splits, "val": metadata[:0]}, facts)
    refuses(r"val\.csv lists no image: run `split` again", read_split, "val")


def test_prepared_images_are_mapped_and_found_by_id(workspace: Path) -> None:
    images = read_prepared(prepared(workspace / "prepared"))
    assert isinstance(images.images, np.memmap)
    assert not images.images.flags.writeable
    assert (images.size, images.fit, images.color_constancy) == (4, "crop", "none")
    rows = images.rows_of(["c", "b", "c"])
    assert rows.tolist() == [2, 0, 2]
    assert rows.dtype == np.int64
    refuses("image x, y is listed in a split and was not prepared: run `prepare` again", images.rows_of, ["a", "x", "y"])


@pytest.mark.parametrize(
    ("images", "fragment"),
    [
        (np.zeros((3, 4, 4, 3), np.float32), "must be uint8 of shape (N, size, size, 3), not float32 (3, 4, 4, 3)"),
        (np.zeros((3, 4, 5, 3), np.uint8), "must be uint8 of shape (N, size, size, 3), not uint8 (3, 4, 5, 3)"),
        (np.zeros((3, 4, 4), np.uint8), "must be uint8 of shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), "2 images and 3 rows in the index"),
    ],
)
def test_prepared_images_of_the_wrong_shape(workspace: Path, images: np.ndarray, fragment: str) -> None:
    refuses(re.escape(fragment), read_prepared, prepared(workspace / "prepared", images=images))


def test_damaged_prepared_images(workspace: Path) -> None:
    folder = prepared(workspace / "prepared")
    content = (folder / "images.npy").read_bytes()
    archive = io.BytesIO()
    np.savez(archive, images=np.zeros((3, 4, 4, 3), np.uint8))
    for damaged in (content[:-1], b"not an array", b"", archive.getvalue()):
        (folder / "images.npy").write_bytes(damaged)
        refuses(r"images\.npy is damaged", read_prepared, folder)
    (folder / "images.npy").unlink()
    refuses(r"images\.npy not found: run `prepare` first", read_prepared, folder)


@pytest.mark.parametrize(("column", "value", "other"), [("fit", "crop", "pad"), ("color_constancy", "none", "shades_of_gray")])
def test_prepared_index_with_images_prepared_in_several_ways(workspace: Path, column: str, value: str, other: str) -> None:
    folder = prepared(workspace / "prepared")
    index = (folder / "index.csv").read_text()
    (folder / "index.csv").write_text(index.replace(value, other, 1))
    refuses(f"mixes several values of {column}", read_prepared, folder)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("fit", "stretch", "fit can be squash, crop, pad, not 'stretch'"),
        ("color_constancy", "gray_world", "color_constancy can be none, shades_of_gray, not 'gray_world'"),
        ("width", 0, "width must be a whole number of pixels, not '0' (b), '0' (a), '0' (c)"),
        ("height", "tall", "height must be a whole number of pixels, not 'tall' (b)"),
        ("height", 20.5, "not '20.5' (b)"),
    ],
)
def test_prepared_index_that_says_what_cannot_be(workspace: Path, column: str, value: object, message: str) -> None:
    folder = prepared(workspace / "prepared")
    pd.read_csv(folder / "index.csv").assign(**{column: value}).to_csv(folder / "index.csv", index=False)
    refuses(re.escape(message), read_prepared, folder)


def test_predictions_come_back_as_written(workspace: Path) -> None:
    write_predictions({"val": predictions(), "test": predictions(2)})
    frame = read_predictions("val")
    numbers = [f"{kind}_{dx}" for kind in ("logit", "probability") for dx in CLASSES]
    assert list(frame.columns) == [*DESCRIPTIVE_COLUMNS, *numbers]
    assert frame["probability_nv"].tolist() == [1.0, 1.0, 1.0]
    assert frame["localization"].tolist() == ["unknown"] * 3
    assert len(read_predictions("test")) == 2


@pytest.mark.parametrize(
    ("column", "value"),
    [("logit_mel", float("inf")), ("logit_mel", "high"), ("logit_mel", float("nan")), ("probability_df", 0.1), ("both", 0.5)],
)
def test_predictions_that_no_softmax_gave(workspace: Path, column: str, value: object) -> None:
    frame = predictions().astype(object)
    if column == "both":  # they still sum to 1
        frame.loc[1, ["probability_nv", "probability_df"]] = (1 + value, -value)
    else:
        frame.loc[1, column] = value
    write_predictions({"val": frame})
    refuses(r"logits must be finite and probabilities sum to 1; offending: i1\. Run `evaluate` again", read_predictions, "val")


def test_predictions_without_a_row(workspace: Path) -> None:
    write_predictions({"val": predictions(0)})
    refuses("no row at all", read_predictions, "val")
