"""The stage `external-download`: the drawn set, the challenge's test set from a server of our own, and folders of any names."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from extras import external_download
from skinlesion.artifacts.raw import read_metadata
from skinlesion.audits.external.dataset import EXTERNAL, read_external
from skinlesion.data.sources import dataverse, isic2018, transfer
from skinlesion.data.sources.ground_truth import ONE_HOT
from stages import download
from tests.conftest import WriteParams, refuses
from tests.data.download_cases import jpeg, mask, pack, table, write_files
from tests.data.scripted_server import Answer, Scripted, serve

IDS = [f"ISIC_{number:07d}" for number in range(34524, 34534)]
TRUTH, IMAGES = "/6924466", "/3855824"
ORIGINAL = f"{TRUTH}?format=original"
Serve = Callable[..., None]


def truth() -> pd.DataFrame:
    """Ten images in HAM10000's columns and the one that is in no archive."""
    frame = table().assign(image_id=IDS, dataset="vidir_modern")
    return pd.concat([frame, frame.tail(1).assign(image_id=isic2018.ABSENT, lesion_id="HAM_0000099")], ignore_index=True)


def one_hot(frame: pd.DataFrame) -> pd.DataFrame:
    """The same in ISIC's own columns."""
    return pd.DataFrame({"image": frame["image_id"]} | {dx: (frame["dx"] == dx.lower()).astype(float) for dx in ONE_HOT})


def as_csv(frame: pd.DataFrame, separator: str = ",") -> bytes:
    return frame.to_csv(index=False, sep=separator, lineterminator="\n").encode()


@pytest.fixture
def harvard(monkeypatch: pytest.MonkeyPatch, write_params: WriteParams) -> Iterator[tuple[Scripted, Serve]]:
    """A server, and how to put a table and images on it under Dataverse's ids with their checksums."""
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(transfer, "PIECE", 100)
    write_params({"external.source": "isic2018"})
    with serve() as scripted:
        monkeypatch.setattr(dataverse, "SERVER", scripted.url)

        def publish(content: bytes, ids: list[str] = IDS, at: str = ORIGINAL) -> None:
            files = {f"ISIC2018_Task3_Test_Images/{image_id}.jpg": jpeg(number) for number, image_id in enumerate(ids)}
            archive = pack(files | {"ISIC2018_Task3_Test_Images/LICENSE.txt": b"CC BY-NC", "__MACOSX/._ISIC_0034524.jpg": b"x"})
            scripted.files |= {at: content, IMAGES: archive}
            for name, bytes_ in (("GROUND_TRUTH", content), ("IMAGES", archive)):
                file = getattr(isic2018, name)
                monkeypatch.setattr(isic2018, name, replace(file, md5=hashlib.md5(bytes_).hexdigest()))

        yield scripted, publish


def provenance() -> dict[str, Any]:
    return read_external()[1]


def test_a_challenge_named_and_a_copy_taken(harvard: tuple[Scripted, Serve], workspace: Path, write_params: WriteParams) -> None:
    scripted, publish = harvard
    publish(as_csv(truth()))
    scripted.always = Answer(status=403, headers={"cf-mitigated": "challenge"})
    way_out = r"external\.source=local and external\.path to that folder"
    refuses(rf"HTTP 403 \(a firewall's challenge.*browser.*{way_out}", external_download.main)
    assert not EXTERNAL.exists()
    copies = {"ISIC2018_Task3_Test_GroundTruth.tab": as_csv(truth(), "\t"), "Images.zip": scripted.files[IMAGES]}
    write_files(workspace / "copy", copies)
    write_params({"external.source": "local", "external.path": "copy"})
    external_download.main()
    assert list(read_metadata(EXTERNAL)["image_id"]) == IDS and provenance()["left_out"] == [isic2018.ABSENT]
    (workspace / "copy" / f"{isic2018.ABSENT}.jpg").write_bytes(jpeg(99))
    external_download.main()
    assert len(read_metadata(EXTERNAL)) == 11 and provenance()["left_out"] == []


def test_what_is_published_of_the_test_set() -> None:
    assert (isic2018.IMAGES.number, isic2018.IMAGES.md5) == (3855824, "0488b6f65849e310857d9207daa55a21")
    assert (isic2018.GROUND_TRUTH.number, isic2018.GROUND_TRUTH.md5) == (6924466, "2b5663aacc9644740f27e355cf7f369a")


def test_isic2018_with_cut_and_gap(harvard: tuple[Scripted, Serve], workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    scripted, publish = harvard
    publish(as_csv(truth()))
    scripted.answers = [Answer(), Answer(cut_after=500)]
    with caplog.at_level(logging.WARNING):
        external_download.main()
    assert scripted.asked == [(ORIGINAL, None), (IMAGES, None), (IMAGES, "bytes=500-")]
    metadata, stated = read_external()
    assert list(metadata["image_id"]) == IDS and "dataset" in metadata.columns
    assert metadata["lesion_id"].nunique() == 9 and metadata.loc[0, "age"] == 80
    assert sorted(path.stem for path in (EXTERNAL / "images").iterdir()) == IDS
    assert stated["left_out"] == [isic2018.ABSENT] and stated["lesions_known"] is True
    assert f"{isic2018.ABSENT} is left out" in caplog.text
    assert stated["source"] == "isic2018" and stated["licence"] == "CC BY-NC 4.0" and not stated["synthetic"]
    files = (isic2018.GROUND_TRUTH, isic2018.IMAGES)
    assert {entry["name"]: entry["md5"] for entry in stated["files"]} == {file.name: file.md5 for file in files}
    assert stated["counts"]["images"] == 10
    external_download.main()
    assert len(scripted.asked) == 3  # both files were kept


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_table_in_one_hot_columns_makes_each_image_a_lesion(harvard: tuple[Scripted, Serve], separator: str) -> None:
    harvard[1](as_csv(one_hot(truth()), separator))
    external_download.main()
    metadata, stated = read_external()
    assert list(metadata["dx"]) == list(truth()["dx"])[:10]
    assert list(metadata["lesion_id"]) == list(metadata["image_id"]) == IDS
    assert stated["lesions_known"] is False and stated["left_out"] == [isic2018.ABSENT]
    assert metadata["age"].isna().all() and set(metadata["sex"]) == set(metadata["dx_type"]) == {"unknown"}


def test_lesions_of_a_one_hot_table_are_taken_where_it_has_them(harvard: tuple[Scripted, Serve]) -> None:
    harvard[1](as_csv(one_hot(truth()).assign(lesion_id=truth()["lesion_id"])))
    external_download.main()
    metadata, stated = read_external()
    assert metadata["lesion_id"].nunique() == 9 and stated["lesions_known"] is True


@pytest.mark.parametrize("refusal", ["404", "other bytes"])
def test_the_table_is_asked_for_without_query_where_no_original_is_given(harvard: tuple[Scripted, Serve], refusal: str) -> None:
    scripted, publish = harvard
    publish(as_csv(truth()), at=TRUTH)
    if refusal == "other bytes":
        scripted.files[ORIGINAL] = as_csv(truth(), "\t")
    external_download.main()
    assert [path for path, _ in scripted.asked] == [ORIGINAL, TRUTH, IMAGES]
    assert len(read_metadata(EXTERNAL)) == 10


@pytest.mark.parametrize(("path", "name"), [(ORIGINAL, "GroundTruth"), (IMAGES, r"Images\.zip")])
def test_wrong_bytes_are_refused(harvard: tuple[Scripted, Serve], path: str, name: str) -> None:
    scripted, publish = harvard
    publish(as_csv(truth()))
    scripted.files[TRUTH] = scripted.files[path] = scripted.files[path][:-1] + b"#"
    refuses(rf"ISIC2018_Task3_Test_{name} has the MD5", external_download.main)
    assert not EXTERNAL.exists()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (IDS[1:], r"1 id\(s\) have a row in the metadata and no image.*ISIC_0034524"),
        ([*IDS, "ISIC_0034534"], r"1 id\(s\) are images without a row.*ISIC_0034534"),
    ],
)
def test_the_known_gap_is_no_pardon_for_another(harvard: tuple[Scripted, Serve], ids: list[str], message: str) -> None:
    harvard[1](as_csv(truth()), ids=ids)
    refuses(message, external_download.main)


def test_the_gap_is_filled_should_the_image_come_one_day(harvard: tuple[Scripted, Serve]) -> None:
    harvard[1](as_csv(truth()), ids=[*IDS, isic2018.ABSENT])
    external_download.main()
    assert len(read_metadata(EXTERNAL)) == 11 and provenance()["left_out"] == []


@pytest.fixture
def take(write_params: WriteParams, workspace: Path) -> Callable[..., pd.DataFrame]:
    """Run the stage on a local folder with the given files; the metadata."""

    def run(files: dict[str, bytes], path: str = "clinic") -> pd.DataFrame:
        write_files(workspace / "clinic", files)
        write_params({"external.source": "local", "external.path": path})
        external_download.main()
        return read_metadata(EXTERNAL)

    return run


def as_diagnoses(frame: pd.DataFrame) -> dict[str, bytes]:
    return {"diagnoses.csv": as_csv(frame)}


def clinic(names: list[str], frame: pd.DataFrame) -> dict[str, bytes]:
    return as_diagnoses(frame) | {f"pictures/{name}": jpeg(number) for number, name in enumerate(names)}


def test_a_folder_with_names_of_its_own(take: Callable[..., pd.DataFrame], caplog: pytest.LogCaptureFixture) -> None:
    ids = [f"patient {number}.left" for number in range(10)]
    names = [f"{image_id}{suffix}" for image_id, suffix in zip(ids, (".jpg", ".jpeg", ".JPG", ".jfif", ".png") * 2, strict=False)]
    files = clinic(names, table().assign(image_id=ids, camera="x")) | {"masks/a_segmentation.png": mask(), "notes.txt": b"."}
    with caplog.at_level(logging.WARNING):
        assert list(take(files)["image_id"]) == ids
    assert "left aside, since images must be JPEG and masks PNG: masks/a_segmentation.png (a PNG)" in caplog.text
    assert "left aside, neither images nor the table: notes.txt" in caplog.text
    assert provenance()["origin"] == "clinic"
    assert [entry["name"] for entry in provenance()["files"]] == ["diagnoses.csv", "pictures/"]
    whole = {"all.zip": pack(files)}
    assert list(take(whole)["image_id"]) == list(take(whole, "clinic/all.zip")["image_id"]) == ids
    assert provenance()["files"][1]["name"] == "all.zip"


PICTURES = [f"pictures/{image_id}.jpg" for image_id in table()["image_id"]]


def test_the_challenge_s_lesions_and_a_spreadsheet_s_commas(take: Callable[..., pd.DataFrame]) -> None:
    frame = table()
    files = clinic([f"{image_id}.jpg" for image_id in frame["image_id"]], one_hot(frame))
    files["diagnoses.csv"] = as_csv(one_hot(frame), ";").replace(b".0", b",0")
    lesions = frame.assign(image=frame["image_id"])[["image", "lesion_id"]]
    taken = take(files | {"ISIC2018_Task3_Training_LesionGroupings.csv": as_csv(lesions)})
    assert list(taken["dx"]) == list(frame["dx"]) and list(taken["lesion_id"]) == list(frame["lesion_id"])
    assert provenance()["lesions_known"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second.csv": b"a,b\n1,2\n"}, r"clinic holds different metadata files: .*second\.csv"),
        (
            dict.fromkeys(PICTURES) | {"a.png": mask()},
            r"10 image\(s\) are missing, as ISIC_0000000; .*: a.png \(a PNG\). Convert",
        ),
        ({"diagnoses.csv": None}, r"holds no table \(\.csv"),
        (dict.fromkeys(PICTURES) | {"a.7z": b"7z"}, r"holds no image, as \.jpg, .*; it holds a\.7z"),
        ({"diagnoses.csv": b"id,label\n1,2\n"}, "has the columns id, label; known are HAM10000's"),
        (as_diagnoses(table().drop(columns="age")), r"diagnoses\.csv lacks the column\(s\) age"),
        (as_diagnoses(table().assign(dx="MEL")), r"diagnoses\.csv: unknown diagnosis 'MEL'"),
        (as_diagnoses(one_hot(table()).assign(NV=1)), r"csv: ISIC_0000000, .* must have a 1 for one diag"),
        (as_diagnoses(one_hot(table()).assign(MEL="often")), "must have a 1 for one diagnosis"),
        ({"pictures/ISIC_0000003.jpg": b"no picture"}, "1 of 10 images cannot be used: ISIC_0000003"),
        ({"pictures/ISIC_0000099.jpg": jpeg(99)}, "images without a row in the metadata"),
    ],
)
def test_an_unusable_folder_is_refused(take: Callable[..., pd.DataFrame], change: dict[str, bytes | None], message: str) -> None:
    files = clinic([f"{image_id}.jpg" for image_id in table()["image_id"]], table()) | change
    refuses(message, take, {name: content for name, content in files.items() if content is not None})
    assert not EXTERNAL.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"external.source": "local"}, "set external.path"),
        ({"external.source": "local", "external.path": "nowhere"}, r"nowhere not found: set external\.path to a folder or zip"),
        ({"external.path": "clinic"}, "set external.path to null"),
        ({"external.sample_lesions": 20}, "external.sample_lesions"),
        ({"external.source": "kaggle"}, "external.source"),
    ],
)
def test_impossible_params_are_refused(write_params: WriteParams, overrides: dict[str, Any], message: str) -> None:
    write_params(overrides)
    refuses(message, external_download.main)


def test_the_drawn_set_shares_no_id_with_the_sample_and_says_that_it_is_synthetic(write_params: WriteParams) -> None:
    sample = {f"download.sample.{name}": value for name, value in (("lesions", 21), ("width", 72), ("height", 64))}
    write_params(sample | {"external.sample_lesions": 22})
    download.main()
    external_download.main()
    (ours, theirs), stated = (read_metadata(), read_metadata(EXTERNAL)), provenance()
    assert theirs["lesion_id"].nunique() == stated["counts"]["lesions"] == 22 and stated["synthetic"] is True
    for column in ("image_id", "lesion_id"):
        assert not set(ours[column]) & set(theirs[column])
    assert sorted(path.name for path in EXTERNAL.iterdir()) == ["images", "metadata.csv", "provenance.json"]
    assert "seed=20181127, lesions=22, width=72, height=64" in stated["origin"]
    first = (EXTERNAL / "metadata.csv").read_bytes()
    write_params(sample | {"external.sample_lesions": 22, "external.sample_seed": 1})
    external_download.main()
    assert (EXTERNAL / "metadata.csv").read_bytes() != first
