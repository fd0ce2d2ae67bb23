"""Every layout, link, table and name that a local source of `download` may have, and what does not fit together."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from skinlesion.artifacts.raw import read_metadata, read_provenance
from skinlesion.artifacts.tables import METADATA_COLUMNS
from skinlesion.base.errors import PipelineError
from tests.conftest import refuses
from tests.data.download_cases import Content, jpeg, kaggle_files, mask, pack, table, write_files
from tests.stage_cases import files_of

METADATA = "HAM10000_metadata.csv"


def flat(files: Content) -> Content:
    return {path.split("/")[-1]: content for path, content in files.items()}


def dataverse_table() -> bytes:
    """The original metadata file: no extension, a further column, in the middle here."""
    frame = table()
    frame.insert(2, "dataset", "vidir_modern")
    return frame.to_csv(index=False).encode()


def archived(files: Content) -> Content:
    """As on Dataverse: each folder an archive, the metadata beside them."""
    folders = sorted({path.split("/")[0] for path in files if "/" in path})
    archives = {f"{name}.zip": pack({path: c for path, c in files.items() if path.startswith(name)}) for name in folders}
    return {"HAM10000_metadata": dataverse_table(), **archives}


def renamed(files: Content) -> Content:
    """Extensions as other tools write them."""
    return {path.replace("_1/", "_1/deeper/").replace(".jpg", ".JPEG").replace(".png", ".PNG"): c for path, c in files.items()}


def saved(change: Callable[[str], str], encoding: str = "utf-8", **options: Any) -> Callable[[Content], Content]:
    """The metadata as a spreadsheet saves them: with decimal commas in German, from the text that pandas writes."""
    return lambda files: files | {METADATA: change(table().to_csv(index=False, **options)).encode(encoding)}


def commas(text: str) -> str:
    return text.replace(".0", ",0")


def challenge(files: Content) -> Content:
    """The challenge's own folders, and its further images beside them."""
    own = {path.replace("HAM10000_images_part_", "ISIC2018_Task3_Training_Input/"): content for path, content in files.items()}
    return {path.replace("Input/1/", "Input/").replace("Input/2/", "Input/"): content for path, content in own.items()} | {
        "ISIC2018_Task3_Test_Input/ISIC_0034524.jpg": jpeg(99),
        "isic2018_task3_validation_input/ISIC_0034321.jpg": jpeg(98),
        "ISIC2018_Task3_Training_Input/LICENSE.txt": b"CC BY-NC",
    }


def other_endings(files: Content) -> Content:
    """JPEGs that are called something else."""
    endings = {"0": "jfif", "1": "jpe", "2": "JPE", "3": "JFIF", "4": "png", "5": "tiff", "6": "Jif"}
    return {re.sub(r"([0-6])\.jpg$", lambda match: f"{match[1]}.{endings[match[1]]}", path): c for path, c in files.items()}


LAYOUTS: dict[str, Callable[[Content], Content]] = {
    "kaggle": lambda files: files,
    "flat": flat,
    "dataverse archives": archived,
    "dataverse tab": lambda files: (
        {path: content for path, content in files.items() if path != METADATA}
        | {"HAM10000_metadata.tab": table().to_csv(index=False, sep="\t", quoting=2).encode()}
    ),
    "other extensions": renamed,
    "byte order mark and CRLF": lambda files: files | {METADATA: b"\xef\xbb\xbf" + files[METADATA].replace(b"\n", b"\r\n")},
    "semicolons and decimal commas": saved(commas, sep=";"),
    "every value in quotes": saved(commas, sep=";", quoting=1),
    "decimal commas in quotes": saved(commas, quoting=1),
    "UTF-16 with tabs": saved(commas, "utf-16", sep="\t"),
    "UTF-16 of the other order": saved(lambda text: f"\ufeff{text}", "utf-16-be", sep=";"),
    "a first line for Excel": saved(lambda text: f"sep=;\r\n{text}", "utf-8-sig", sep=";", lineterminator="\r\n"),
    "bars": saved(str, sep="|"),
    "challenge": challenge,
    "challenge in an archive": lambda files: {"all.zip": pack(challenge(files))},
    "an archive without an ending": lambda files: {"everything": pack(files)},
    "endings that are not the content's": other_endings,
    "metadata brought again": lambda files: {
        path.replace(METADATA, "ham10000_metadata (1).CSV"): content for path, content in files.items()
    },
    "one archive": lambda files: {"everything.zip": pack(files)},
    "folders and their archives": lambda files: files | {"again.ZIP": pack(files)},
    "doubled folders": lambda files: files | {path.replace("HAM10000_images", "ham10000_images"): c for path, c in files.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images(take: Callable[..., Path], layout: str) -> None:
    files = kaggle_files()
    raw = take(LAYOUTS[layout](files))
    found = files_of(raw)
    expected = {f"images/{path.split('/')[1]}": c for path, c in files.items() if "images_part" in path}
    expected |= {f"segmentations/{path.split('/')[1]}": c for path, c in files.items() if "segmentation" in path}
    assert found.keys() == expected.keys() | {"metadata.csv", "provenance.json"}
    assert {name: found[name] for name in expected} == expected
    metadata = pd.read_csv(raw / "metadata.csv", dtype=str, keep_default_na=False)
    assert tuple(metadata.columns[:7]) == METADATA_COLUMNS
    pd.testing.assert_frame_equal(metadata[list(METADATA_COLUMNS)], table().astype(str)[list(METADATA_COLUMNS)])
    if layout.startswith("dataverse archives"):
        assert list(metadata.columns[7:]) == ["dataset"]
    counts = read_provenance(raw)["counts"]
    assert (counts["images"], counts["lesions"], counts["masks"]) == (10, 9, 10)
    assert counts["dx"] == {"akiec": 1, "bcc": 1, "bkl": 1, "df": 1, "mel": 2, "nv": 3, "vasc": 1}
    assert counts["dx_type"] == {"follow_up": 4, "histo": 6}


def test_links_followed_once_loops_named(take: Callable[..., Path], workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = kaggle_files(masks=False)
    write_files(workspace / "here", {path: c for path, c in files.items() if "part_2" not in path})
    there = write_files(workspace / "there", {path: content for path, content in files.items() if "part_2" in path})
    for name, target in (("part_2", there / "HAM10000_images_part_2"), ("again", there / "HAM10000_images_part_2")):
        (workspace / "here" / name).symlink_to(target)
    for name, target in (("up", workspace), ("self", workspace / "here"), ("HAM10000_images_part_1/root", Path("/"))):
        (workspace / "here" / name).symlink_to(target)
    (there / "HAM10000_images_part_2" / "back").symlink_to(workspace / "here")
    for image in files:
        if image.endswith("0.jpg"):
            (workspace / "here" / image).rename(workspace / "elsewhere.jpg")
            (workspace / "here" / image).symlink_to(workspace / "elsewhere.jpg")
    raw = take({}, path="here")
    taken = {path.name: path.read_bytes() for path in (raw / "images").iterdir()}
    assert taken == {path.split("/")[1]: content for path, content in files.items() if "part" in path}
    looped = "HAM10000_images_part_1/root, again/back, part_2, self, up"
    assert f"left aside, links to folders that are looked through anyway: {looped}" in caplog.text


def truth(**options: Any) -> bytes:
    """The challenge's table of diagnoses."""
    frame = table()
    rows = {dx: (frame["dx"] == dx.lower()).astype(float) for dx in ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")}
    return pd.DataFrame({"image": frame["image_id"]} | rows).to_csv(index=False, **options).encode()


def groupings() -> bytes:
    """The challenge's table of lesions, in another order."""
    ways = {"histo": "histopathology", "follow_up": "serial imaging showing no change"}
    frame = table().assign(image=table()["image_id"], diagnosis_confirm_type=table()["dx_type"].map(ways))
    return frame[["image", "lesion_id", "diagnosis_confirm_type"]][::-1].to_csv(index=False).encode()


TRUTH, GROUPINGS = "ISIC2018_Task3_Training_GroundTruth", "ISIC2018_Task3_Training_LesionGroupings"


@pytest.mark.parametrize("options", [{}, {"sep": ";", "decimal": ","}])
@pytest.mark.parametrize("name", [f"{TRUTH}/{TRUTH}.csv", f"{TRUTH}_v2.csv", f"{TRUTH.lower()}.CSV"])
def test_the_challenge_s_own_tables_are_metadata(take: Callable[..., Path], name: str, options: dict[str, str]) -> None:
    files = challenge(kaggle_files(masks=False))
    del files[METADATA]
    raw = take(files | {name: truth(**options), f"{GROUPINGS}.csv": groupings()})
    expected = table().assign(age=float("nan"), sex="unknown", localization="unknown")
    pd.testing.assert_frame_equal(read_metadata(raw), expected[list(METADATA_COLUMNS)], check_dtype=False)
    provenance = read_provenance(raw)
    assert [entry["name"] for entry in provenance["files"]][:2] == [name, f"{GROUPINGS}.csv"]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({f"{TRUTH}.csv": truth()}, "GroundTruth.csv does not say which images show one lesion.*LesionGroupings.csv"),
        (
            {f"{TRUTH}.csv": truth(), f"{GROUPINGS}.csv": b"image,lesion_id\nISIC_0000000,HAM_1\n"},
            "LesionGroupings.csv: ISIC_0000001, .* has no row",
        ),
        (
            {f"{TRUTH}.csv": truth(), f"{GROUPINGS}.csv": b"image\nISIC_0000000\n"},
            r"lacks the column\(s\) lesion_id; it has image",
        ),
        ({"HAM10000_metadata.xlsx": b"PK"}, r"holds no metadata; .*; it holds HAM10000_metadata.xlsx, LICENSE.txt"),
    ],
)
def test_the_challenge_s_tables_that_do_not_suffice(take: Callable[..., Path], tables: Content, message: str) -> None:
    files = challenge(kaggle_files(masks=False))
    del files[METADATA]
    refuses(message, take, files | tables)
    assert not Path("data/raw").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({METADATA: None}, "holds no metadata; it must be named HAM10000_metadata"),
        ({METADATA: pack({"xl/workbook.xml": b""})}, "CSV file, but a zip archive, or an Office file as .xlsx: save"),
        ({METADATA: table().to_csv(index=False).encode("utf-16-le")}, "a file with NUL characters in its header"),
        (
            {METADATA: table().replace("scalp", "Schädel").to_csv(index=False).encode("cp1252")},
            "HAM10000_metadata.csv is not a readable CSV file, but text that is not UTF-8 in line 2: save it as CSV in UTF-8",
        ),
        (
            {METADATA: "".join(f'"{line}"\n' for line in table().to_csv(index=False).splitlines()).encode()},
            "each row stands in quotes as a whole",
        ),
        ({METADATA: commas(table()[1:].to_csv(index=False)).encode()}, r"Expected 7 fields in line 3, saw 8.*in quotes"),
        (
            {"copy/HAM10000_metadata": dataverse_table()},
            "different metadata files: HAM10000_metadata.csv, copy/HAM10000_metadata",
        ),
        ({METADATA: b""}, "HAM10000_metadata.csv is not a readable CSV file"),
        ({METADATA: b"\xff\xfe\x00"}, "HAM10000_metadata.csv is not a readable CSV file"),
        ({METADATA: b"image_id,dx\nISIC_0000000,nv,1\n"}, 'more values than there are column names.* in quotes, as "80'),
        ({METADATA: table().drop(columns="dx_type")}, r"HAM10000_metadata.csv lacks the column\(s\) dx_type"),
        ({METADATA: table().replace("vasc", "wart")}, "HAM10000_metadata.csv: unknown diagnosis 'wart'"),
        ({METADATA: table().replace("80.0", "old")}, "age must be a number .* 'old' \\(ISIC_0000000\\)"),
        ({METADATA: pd.concat([table(), table()[:1]])}, "duplicate image_id ISIC_0000000"),
        ({METADATA: table()[:9]}, r"1 id\(s\) are images without a row .*: ISIC_0000009"),
        ({"HAM10000_images_part_1/ISIC_0000003.jpg": None}, r"1 id\(s\) have a row in the metadata and no image.*: ISIC_0000003"),
        ({"ISIC_7777777_segmentation.png": mask()}, r"1 id\(s\) have a mask and no row.*: ISIC_7777777"),
        (
            {"HAM10000_images_part_1/ISIC_0000003.jpg": None, "x/ISIC_0000003.png": mask(), "ISIC_0000001.tif": b"II*\0"},
            r"1 image\(s\) are missing, as ISIC_0000003; .* PNG: ISIC_0000001.tif \(a TIFF\), x/ISIC_0000003.png \(a PNG\)",
        ),
        (
            {"HAM10000_images_part_1/ISIC_0000003.jpg": None, "x.zip": pack({"ISIC_0000003.jpg": b"RIFF1234WEBP"})},
            r"left aside, since images must be JPEG and masks PNG: x.zip: ISIC_0000003.jpg \(a WebP\)\. Convert them first",
        ),
        ({"x/ISIC_0000002.jpg": jpeg(99)}, "ISIC_0000002 is there twice .*: HAM10000_images_part_1/.* and x/ISIC_0000002.jpg"),
        ({"more.zip": pack({"x/ISIC_0000002.jpg": jpeg(99)})}, r"ISIC_0000002 is there twice .* and more.zip: ISIC_0000002.jpg"),
    ],
)
def test_a_source_that_does_not_fit_together(take: Callable[..., Path], change: dict[str, Any], message: str) -> None:
    files: dict[str, Any] = {name: content for name, content in (kaggle_files() | change).items() if content is not None}
    with pytest.raises(PipelineError, match=message) as raised:
        take({name: c.to_csv(index=False).encode() if isinstance(c, pd.DataFrame) else c for name, c in files.items()})
    assert ".partial" not in str(raised.value)
    assert not Path("data/raw").exists()
    assert list(Path("data").iterdir()) == []
