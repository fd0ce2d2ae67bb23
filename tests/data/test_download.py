"""The stage `download` from end to end: the sample, every local layout, counts, and what happens when the disk gives out."""

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from skinlesion.artifacts.raw import read_metadata, read_provenance
from skinlesion.base.errors import run_stage
from skinlesion.data.sources import ham10000 as published
from skinlesion.data.sources.layout import find_inputs, write_metadata
from stages import download
from tests.conftest import WriteParams, refuses
from tests.data.download_cases import jpeg, kaggle_files, pack, table, write_files
from tests.stage_cases import files_of

SMALL_SAMPLE = {"download.sample.lesions": 21, "download.sample.width": 64, "download.sample.height": 64}


def test_sample_needs_nothing_says_that_it_is_synthetic_and_is_reproducible(workspace: Path, write_params: WriteParams) -> None:
    write_params(SMALL_SAMPLE)
    download.main()
    raw = workspace / "data" / "raw"
    first = files_of(raw)
    provenance, metadata = read_provenance(raw), read_metadata(raw)
    assert provenance["synthetic"] is True
    assert provenance["licence"] == "CC0-1.0"
    assert provenance["counts"]["images"] == len(metadata) == len(list((raw / "images").iterdir()))
    assert provenance["counts"]["lesions"] == 21
    assert sum(provenance["counts"]["dx"].values()) == sum(provenance["counts"]["dx_type"].values()) == len(metadata)
    assert str(workspace) not in json.dumps(provenance)
    download.main()
    assert files_of(raw) == first


def test_a_folder_that_is_not_there(workspace: Path, write_params: WriteParams) -> None:
    write_params({"download.source": "local", "download.path": "nowhere"})
    refuses("^nowhere not found: set download.path to a folder or zip archive", download.main)
    assert not (workspace / "data" / "raw").exists()


def test_missing_ages_are_kept_as_missing(take: Callable[..., Path]) -> None:
    ages = read_metadata(take(kaggle_files()))["age"]
    assert list(ages.isna()) == [False, True, False, False, False, True, False, False, False, False]
    assert ages[2] == 0.0


@pytest.mark.parametrize("word", ["NA", "null", "#N/A", "None", "unknown"])
def test_what_r_pandas_and_spreadsheets_write_for_missing_is_missing(take: Callable[..., Path], word: str) -> None:
    frame = table().replace({"age": "80.0", "sex": "male", "localization": "scalp"}, word)
    metadata = read_metadata(take(kaggle_files() | {"HAM10000_metadata.csv": frame.to_csv(index=False).encode()}))
    assert list(metadata["age"].isna()[:3]) == [True, True, False]
    assert (set(metadata["sex"]), set(metadata["localization"])) == ({"female", "unknown"}, {"unknown"})


def test_the_archive_itself_may_be_named(take: Callable[..., Path], workspace: Path) -> None:
    raw = take({"ham.zip": pack(kaggle_files(masks=False)), "unrelated.zip": b"not opened"}, path="source/ham.zip")
    provenance = read_provenance(raw)
    assert provenance["counts"]["masks"] == 0
    assert not (raw / "segmentations").exists()
    assert provenance["origin"] == "source/ham.zip"


def test_provenance_of_a_local_source(take: Callable[..., Path], workspace: Path) -> None:
    files = kaggle_files()
    archive = pack({name: files.pop(name) for name in list(files) if "part_2" in name})
    provenance = read_provenance(take(files | {"sub/part_2.zip": archive}))
    images = [content for name, content in files.items() if "part_1" in name]
    digests = sorted(hashlib.md5(content).hexdigest() for content in images)
    entries = {entry["name"]: entry for entry in provenance["files"]}
    assert entries.keys() == {"HAM10000_metadata.csv", "HAM10000_images_part_1/", "HAM10000_segmentations/", "sub/part_2.zip"}
    assert entries["HAM10000_images_part_1/"] == {
        "name": "HAM10000_images_part_1/",
        "count": 5,
        "bytes": sum(map(len, images)),
        "md5_of_sorted_md5s": hashlib.md5("\n".join(digests).encode()).hexdigest(),
    }
    assert entries["sub/part_2.zip"]["md5"] == hashlib.md5(archive).hexdigest()
    assert entries["HAM10000_metadata.csv"]["md5"] == hashlib.md5(files["HAM10000_metadata.csv"]).hexdigest()
    assert provenance["source"] == "local"
    assert provenance["synthetic"] is False
    assert provenance["licence"].startswith("unknown")  # ten images are not HAM10000
    assert str(workspace) not in json.dumps(provenance)


def test_relative_paths_start_at_the_root(take: Callable[..., Path], workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(workspace / "main" / "images", kaggle_files())
    monkeypatch.setenv("DVC_ROOT", str(workspace / "main"))
    assert read_provenance(take({}, path="images"))["counts"]["images"] == 10


def test_a_test_set_and_other_pictures_are_left_aside_aloud(take: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    strangers = {"ISIC2018_Task3_Test_Images.zip": b"not opened", "ISIC2018_Task3_Test_GroundTruth": b"", "cover.jpg": jpeg(99)}
    raw = take(kaggle_files() | strangers | {"__MACOSX/._ISIC_0000001.jpg": b"fork", "hmnist_28_28_L.csv": b"1,2"})
    assert len(list((raw / "images").iterdir())) == 10
    assert "no part of HAM10000: ISIC2018_Task3_Test_GroundTruth, ISIC2018_Task3_Test_Images.zip" in caplog.text
    assert "not ISIC_ and seven digits: ._ISIC_0000001.jpg, cover.jpg" in caplog.text
    assert "neither images nor the metadata: hmnist_28_28_L.csv" in caplog.text


def test_no_images_at_all(take: Callable[..., Path]) -> None:
    only_masks = {name: content for name, content in kaggle_files().items() if "part" not in name}
    refuses("source holds no images named ISIC_ and seven digits", take, only_masks)


def test_counts_must_be_those_of_ham10000_unless_told_otherwise(take: Callable[..., Path]) -> None:
    expected = r"found 10 images \(expected 10,015\), 9 lesions \(expected 7,470\), 1 akiec \(expected 327\).*download.expect=any"
    refuses(expected, take, kaggle_files(), expect="ham10000")


def test_exact_counts() -> None:
    dx = [name for name, number in published.IMAGES.items() for _ in range(number)]
    frame = pd.DataFrame({"dx": dx, "lesion_id": [str(min(number, 7469)) for number in range(10_015)]})
    published.check_counts(frame)
    frame.loc[0, "lesion_id"] = "another"  # lesion 0 had one image: the number stays
    published.check_counts(frame)
    frame.loc[10_014, "lesion_id"] = "one more"
    refuses(r"found 7,471 lesions \(expected 7,470\)\. ", published.check_counts, frame)


def test_a_failure_leaves_the_old_data_alone(take: Callable[..., Path], workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(take(kaggle_files()))
    written: list[Path] = []
    write_bytes = Path.write_bytes

    def until_full(path: Path, content: bytes) -> int:
        if "data" in path.parts and len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.extend([path] if "data" in path.parts else [])
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    with pytest.raises(SystemExit) as ended:
        run_stage(lambda: take(kaggle_files(masks=False)))
    assert str(ended.value.code).startswith("error: No space left on device at ")
    assert "free some space" in str(ended.value.code)
    assert len(written) == 4
    assert files_of(workspace / "data") == {f"raw/{name}": content for name, content in before.items()}


def test_the_metadata_of_the_real_data_set(ham10000: Path, tmp_path: Path) -> None:
    inputs = find_inputs(ham10000)
    assert len(inputs.loose) == 2 * 10_015
    published.check_counts(write_metadata(inputs, tmp_path))
    assert (tmp_path / "metadata.csv").read_bytes() == (ham10000 / "HAM10000_metadata.csv").read_bytes()
