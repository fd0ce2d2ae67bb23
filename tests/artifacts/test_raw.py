"""`data/raw`: metadata, images and provenance as a source leaves them; what is damaged is refused by name."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion.artifacts.raw import list_images, read_metadata
from tests.conftest import MakeRaw, refuses


def test_metadata_types_and_missing_values(raw_folder: Path, metadata: pd.DataFrame) -> None:
    frame = read_metadata(raw_folder)
    assert list(frame["image_id"]) == list(metadata["image_id"])
    assert frame["age"].dtype == np.float64
    assert frame["age"].isna().sum() == metadata["age"].isna().sum() > 0
    assert set(frame["sex"]) == {"male", "female", "unknown"}
    assert (frame["sex"] == "unknown").sum() == (metadata["sex"] == "").sum()


@pytest.mark.parametrize(
    ("column", "value", "fragment"),
    [
        ("image_id", "", "1 row(s) have no image_id"),
        ("image_id", "ISIC_0000001", "duplicate image_id ISIC_0000001"),
        ("dx", "melanoma", "unknown diagnosis 'melanoma' (ISIC_0000000); known are akiec, bcc"),
        ("dx", "", "unknown diagnosis '' (ISIC_0000000)"),
        ("age", "old", "age must be a number of years from 0 to 120, or empty where it is unknown, not 'old' (ISIC_0000000)"),
        ("age", "-5", "age must be a number of years from 0 to 120, or empty where it is unknown, not '-5' (ISIC_0000000)"),
        ("age", "121", "not '121' (ISIC_0000000)"),
        ("age", "True", "not 'True' (ISIC_0000000)"),
        ("image_id", "../../etc/passwd", "image_id '../../etc/passwd' cannot be one: no '/'"),
        ("image_id", ".hidden", "image_id '.hidden' cannot be one"),
        ("image_id", "a\nb", "image_id 'a\\nb' cannot be one"),
        ("lesion_id", "a\0b", "lesion_id 'a\\x00b' cannot be one"),
        ("age", "inf", "age must be a number of years from 0 to 120, or empty where it is unknown, not 'inf' (ISIC_0000000)"),
        ("lesion_id", "", "no lesion_id for ISIC_0000000"),
    ],
)
def test_a_broken_row_of_the_metadata(make_raw: MakeRaw, metadata: pd.DataFrame, column: str, value: str, fragment: str) -> None:
    raw = make_raw(metadata)
    frame = metadata.astype(object).sort_values("image_id")
    frame.iloc[0, frame.columns.get_loc(column)] = value
    frame.to_csv(raw / "metadata.csv", index=False)
    refuses(re.escape(fragment), read_metadata, raw)


def test_metadata_that_is_missing_no_csv_or_short_of_a_column(raw_folder: Path, metadata: pd.DataFrame) -> None:
    path = raw_folder / "metadata.csv"
    metadata.drop(columns=["dx", "sex"]).to_csv(path, index=False)
    refuses(r"lacks the column\(s\) dx, sex; it has lesion_id, image_id, dx_type", read_metadata, raw_folder)
    for content in (b"", b'a,b\n"1,2\n', b"\xff\xfe\x00"):
        path.write_bytes(content)
        refuses("is not a readable CSV file", read_metadata, raw_folder)
    metadata.assign(more="x").rename(columns={"more": "age"}).to_csv(path, index=False)
    refuses(r"metadata\.csv has the column\(s\) 'age' twice: keep the right one", read_metadata, raw_folder)
    path.write_text(path.read_text().replace("age,sex,localization,age", "age,sex,localization"))
    refuses(r"metadata\.csv: the rows have more values than there are column names", read_metadata, raw_folder)
    path.unlink()
    refuses(r"metadata\.csv not found: run the stage that writes it first", read_metadata, raw_folder)


def test_list_of_images(raw_folder: Path, metadata: pd.DataFrame) -> None:
    (raw_folder / "images" / ".DS_Store").touch()
    assert list_images(raw_folder) == sorted(metadata["image_id"])
    (raw_folder / "images" / "notes.txt").touch()
    refuses(r"holds notes\.txt, which is no \.jpg image", list_images, raw_folder)


def test_names_of_images(raw_folder: Path, metadata: pd.DataFrame) -> None:
    """A narrow no-break space, as macOS puts into names of screenshots, is a character like any other; no UTF-8 is none."""
    (raw_folder / "images" / "at 9.41\u202fAM.jpg").touch()
    assert "at 9.41\u202fAM" in list_images(raw_folder)
    (raw_folder / "images" / os.fsdecode(b"caf\xe9.jpg")).touch()
    refuses(r"holds caf\\udce9\.jpg, which cannot be an image_id: rename it in the source", list_images, raw_folder)


def test_empty_columns_of_a_spreadsheet_are_no_matter(raw_folder: Path, metadata: pd.DataFrame) -> None:
    lines = (raw_folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    (raw_folder / "metadata.csv").write_text("".join(f"{line},,\n" for line in lines), encoding="utf-8")
    assert sorted(read_metadata(raw_folder)["image_id"]) == sorted(metadata["image_id"])


def test_no_images(workspace: Path) -> None:
    refuses("images not found: run `download` first", list_images)
    Path("data/raw/images").mkdir(parents=True)
    refuses("holds no image: run `download` again", list_images)
