"""Lesions never cross a split: proved through the stage on small data, and on HAM10000's metadata where it is there."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stages.split
from skinlesion.artifacts.raw import read_metadata
from skinlesion.artifacts.splits import SPLIT_NAMES, fingerprint, read_split
from skinlesion.base.errors import PipelineError
from skinlesion.data import splitting
from skinlesion.diagnoses import CLASSES
from tests.conftest import MakeRaw, WriteParams, refuses
from tests.stage_cases import bytes_below, read_metrics, write_lists

# Of some 190 images a class has a handful in a split, so that one image is half a point or more.
SMALL = {"split.max_deviation": 8.0}
WRITTEN = ("data/splits", "metrics", "plots")


def run() -> tuple[dict[str, pd.DataFrame], dict]:
    """Run the stage; the three lists as a later stage reads them, and the metrics."""
    stages.split.main()
    return {name: read_split(name) for name in SPLIT_NAMES}, read_metrics("split")


def refused() -> str:
    """Run the stage, which must refuse before it writes anything; what it says."""
    with pytest.raises(PipelineError) as caught:
        stages.split.main()
    assert not any(Path(folder).exists() for folder in WRITTEN)
    return str(caught.value)


def as_links(*pairs: tuple[str, str]) -> None:
    pd.DataFrame(pairs, columns=["image_id_a", "image_id_b"]).to_csv("links.csv", index=False)


@pytest.mark.usefixtures("raw_folder")
def test_no_lesion_crosses_and_the_test_folds_are_a_partition(metadata: pd.DataFrame, write_params: WriteParams) -> None:
    tested: list[str] = []
    for fold in range(5):
        write_params({**SMALL, "split.fold": fold})
        splits, metrics = run()
        lesions = [set(splits[name]["lesion_id"]) for name in SPLIT_NAMES]
        assert sum(map(len, lesions)) == len(set.union(*lesions)) == metadata["lesion_id"].nunique()
        images = pd.concat(splits.values())["image_id"]
        assert sorted(images) == sorted(metadata["image_id"])
        assert all(set(frame["dx"]) == set(CLASSES) for frame in splits.values())
        assert metrics["overlap"] == {"images": 0, "lesions": 0}
        tested += list(splits["test"]["image_id"])
    assert sorted(tested) == sorted(metadata["image_id"])


@pytest.mark.usefixtures("raw_folder")
def test_rows_are_the_metadata_s_sorted_by_image(metadata: pd.DataFrame, write_params: WriteParams) -> None:
    write_params(SMALL)
    splits, _ = run()
    assert all(frame["image_id"].is_monotonic_increasing for frame in splits.values())
    together = pd.concat(splits.values()).sort_values("image_id").reset_index(drop=True)
    expected = read_metadata().sort_values("image_id").reset_index(drop=True)
    pd.testing.assert_frame_equal(together, expected)


@pytest.mark.usefixtures("raw_folder")
def test_metrics_and_plots_against_the_lists(metadata: pd.DataFrame, write_params: WriteParams) -> None:
    write_params(SMALL)
    splits, metrics = run()
    shares = pd.DataFrame({name: frame["dx"].value_counts() / len(frame) for name, frame in splits.items()})
    whole = metadata["dx"].value_counts() / len(metadata)
    assert metrics["data"] == {"source": "sample", "synthetic": True}
    assert metrics["images"] == {name: len(frame) for name, frame in splits.items()}
    assert metrics["lesions"] == {name: len(set(frame["lesion_id"])) for name, frame in splits.items()}
    assert metrics["class_counts"]["whole"] == metadata["dx"].value_counts().to_dict()
    assert metrics["class_shares"]["val"] == pytest.approx(shares["val"].to_dict(), abs=1e-6)
    largest = 100 * np.abs(shares.sub(whole, axis=0)).to_numpy().max()
    assert metrics["largest_deviation_points"] == pytest.approx(largest, abs=1e-4)
    missing = {"age": metadata["age"].isna(), "sex": metadata["sex"] == "", "localization": metadata["localization"] == "unknown"}
    for name, rows in missing.items():
        assert sum(part[name] for part in metrics["missing"].values()) == rows.sum()
    assert metrics["links"] == {"pairs": 0, "merges": 0, "sha256": None}
    assert metrics["fingerprint"] == fingerprint(splits)
    for column in ("dx", "age", "sex", "localization"):
        table = pd.read_csv(f"plots/split/{'classes' if column == 'dx' else column}.csv")
        assert list(table.columns) == ["split", column, "images", "share"]
        assert table.groupby("split")["images"].sum().to_dict() == metrics["images"]
        np.testing.assert_allclose(table.groupby("split")["share"].sum(), 1, atol=1e-4)
        orders = [part[column].tolist() for _, part in table.groupby("split", sort=False)]
        assert orders[0] == orders[1] == orders[2]
    classes = pd.read_csv("plots/split/classes.csv")
    assert classes["dx"].tolist() == [*CLASSES] * 3
    assert classes["split"].drop_duplicates().tolist() == list(SPLIT_NAMES)


def test_age_bands_and_unknown_last() -> None:
    ages = pd.Series([0.0, 4.9, 5.0, 52.0, 85.0, np.nan])
    frame = pd.DataFrame({"age": stages.split.age_bands(ages)})
    assert frame["age"].tolist() == [0, 0, 5, 50, 85, "unknown"]
    table = stages.split.count_by({"train": frame, "val": frame[:1]}, "age")
    counted = table.query("split == 'train'")[["age", "images"]].to_numpy().tolist()
    assert counted == [[0, 2], [5, 1], [50, 1], [85, 1], ["unknown", 1]]
    assert table.query("split == 'val'")["images"].tolist() == [1, 0, 0, 0, 0]


@pytest.mark.usefixtures("raw_folder")
def test_same_seed_same_bytes_and_another_seed_other_lists(metadata: pd.DataFrame, write_params: WriteParams) -> None:
    write_params(SMALL)
    first, metrics = run()
    first_bytes = bytes_below(*WRITTEN)
    metadata.sort_values("age").to_csv("data/raw/metadata.csv", index=False)  # the order of the rows means nothing
    run()
    assert bytes_below(*WRITTEN) == first_bytes
    write_params({**SMALL, "split.seed": 1})
    other, other_metrics = run()
    assert set(other["test"]["image_id"]) != set(first["test"]["image_id"])
    assert other_metrics["fingerprint"] != metrics["fingerprint"]


def test_fingerprint_by_hand(workspace: Path) -> None:
    rows = [("b", "L1", "mel"), ("a", "L1", "mel"), ("c", "L2", "nv"), ("d", "L3", "df")]
    frame = pd.DataFrame(rows, columns=["image_id", "lesion_id", "dx"])
    frame = frame.assign(dx_type="histo", age=np.nan, sex="", localization="")
    splits = {"train": frame[:2], "val": frame[2:3], "test": frame[3:]}
    content = b"train\na,L1,mel\nb,L1,mel\nval\nc,L2,nv\ntest\nd,L3,df\n"
    assert fingerprint(splits) == hashlib.sha256(content).hexdigest()
    write_lists(splits)
    assert fingerprint({name: read_split(name) for name in SPLIT_NAMES}) == hashlib.sha256(content).hexdigest()
    moved = {**splits, "val": frame[3:], "test": frame[2:3]}
    assert fingerprint(moved) != fingerprint(splits)


@pytest.mark.usefixtures("raw_folder")
def test_linked_lesions_are_one_lesion_through_every_chain(metadata: pd.DataFrame, write_params: WriteParams) -> None:
    nevi = sorted(metadata.query("dx == 'nv'")["lesion_id"].unique())[:7]
    image = metadata.groupby("lesion_id")["image_id"].first()
    chain = [(nevi[5], nevi[3]), (nevi[4], nevi[2]), (nevi[3], nevi[4]), (nevi[3], nevi[5]), (nevi[0], nevi[1])]
    as_links(*((image[a], image[b]) for a, b in chain))
    write_params({**SMALL, "split.links": "links.csv"})
    splits, metrics = run()
    merged = pd.concat(splits.values()).set_index("image_id")["lesion_id"]
    expected = dict.fromkeys(nevi[2:6], nevi[2]) | {nevi[0]: nevi[0], nevi[1]: nevi[0]}
    before = metadata.set_index("image_id")["lesion_id"]
    assert merged.to_dict() == {image_id: expected.get(lesion, lesion) for image_id, lesion in before.items()}
    digest = hashlib.sha256(Path("links.csv").read_bytes()).hexdigest()
    assert metrics["links"] == {"pairs": 5, "merges": 4, "sha256": digest}
    assert sum(metrics["lesions"].values()) == metadata["lesion_id"].nunique() - 4
    for lesions in (nevi[2:6], nevi[:2]):
        images = before[before.isin(lesions)].index
        assert sum(frame["image_id"].isin(images).any() for frame in splits.values()) == 1


@pytest.mark.usefixtures("raw_folder")
def test_relative_links_start_at_the_main_root(
    tmp_path_factory: pytest.TempPathFactory, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = tmp_path_factory.mktemp("main")
    (main / "links.csv").write_text("\ufeffimage_id_a;image_id_b\r\nISIC_0000000;ISIC_0000000\r\n", encoding="utf-8")
    write_params({**SMALL, "split.links": "links.csv"})
    assert "split.links: links.csv not found" in refused()
    monkeypatch.setenv("DVC_ROOT", str(main))
    assert run()[1]["links"]["pairs"] == 1


@pytest.mark.usefixtures("raw_folder")
def test_links_that_cannot_be(metadata: pd.DataFrame, write_params: WriteParams) -> None:
    write_params({**SMALL, "split.links": "links.csv"})
    mel, nv = (metadata.query(f"dx == '{dx}'")["image_id"].iloc[0] for dx in ("mel", "nv"))
    as_links((mel, "ISIC_9"), ("", nv))
    assert "split.links names unknown image(s) '', 'ISIC_9'" in refused()
    as_links((mel, mel), (nv, mel))
    assert f"split.links joins two diagnoses: {nv} (nv) and {mel} (mel): remove the pair" in refused()
    Path("links.csv").write_text("image_id_a,b\nx,y\n")
    assert "links.csv lacks the column(s) image_id_b; it has image_id_a, b" in refused()
    Path("links.csv").write_text("")
    assert "links.csv is not a readable CSV file" in refused()


@pytest.mark.usefixtures("raw_folder")
def test_rows_and_images_must_match_or_the_lists_of_before_stay(write_params: WriteParams) -> None:
    write_params(SMALL)
    run()
    before, folder = bytes_below(*WRITTEN), Path("data/raw/images")
    (folder / "ISIC_0000003.jpg").rename(folder / "ISIC_0999999.jpg")
    refuses(r"1 row\(s\) of the metadata without an image: ISIC_0000003", stages.split.main)
    (folder / "ISIC_0000003.jpg").touch()
    refuses(r"1 image\(s\) without a row in the metadata: ISIC_0999999", stages.split.main)
    assert bytes_below(*WRITTEN) == before


def test_a_lesion_with_two_diagnoses(make_raw: MakeRaw, metadata: pd.DataFrame, write_params: WriteParams) -> None:
    lesion = metadata.query("dx == 'nv'")["lesion_id"].value_counts().idxmax()
    first = metadata.index[metadata["lesion_id"] == lesion][0]
    metadata.loc[first, "dx"] = "mel"
    make_raw(metadata)
    write_params(SMALL)
    assert f"lesion with two diagnoses: {lesion} (mel and nv)" in refused()


@pytest.mark.parametrize("lesions", [0, 2])
def test_a_class_too_rare_to_split(make_raw: MakeRaw, metadata: pd.DataFrame, write_params: WriteParams, lesions: int) -> None:
    kept = metadata.query("dx == 'df'")["lesion_id"].unique()[:lesions]
    make_raw(metadata[metadata["dx"].ne("df") | metadata["lesion_id"].isin(kept)])
    write_params(SMALL)
    message = refused()
    for part in ("every diagnosis must be in every split: ", f"df ({lesions} lesion(s)) not in ", "Add images of it"):
        assert part in message


def test_more_folds_than_lesions(make_raw: MakeRaw, metadata: pd.DataFrame, write_params: WriteParams) -> None:
    four_each = metadata.groupby("dx")["lesion_id"].unique().map(lambda lesions: list(lesions[:4])).explode()
    make_raw(metadata[metadata["lesion_id"].isin(four_each)])
    write_params({"split.max_deviation": 50.0})
    assert "split.folds is 5, and no diagnosis has more than 4 lesions to deal: lower it" in refused()
    write_params({"split.max_deviation": 50.0, "split.folds": 4})
    assert "split.validation_folds is 5, and no diagnosis has more than 3 lesions to deal: lower it" in refused()
    write_params({"split.max_deviation": 50.0, "split.folds": 4, "split.validation_folds": 3})
    run()


@pytest.mark.usefixtures("raw_folder")
def test_a_share_too_far_from_the_whole(write_params: WriteParams) -> None:
    write_params(SMALL)
    _, metrics = run()
    for folder in WRITTEN:
        shutil.rmtree(folder)
    largest = metrics["largest_deviation_points"]
    write_params({"split.max_deviation": largest - 0.001})
    message = refused()
    whole = pd.Series(metrics["class_shares"]["whole"])
    shares = pd.DataFrame(metrics["class_shares"])[list(SPLIT_NAMES)]
    dx, name = shares.sub(whole, axis=0).abs().stack().idxmax()
    assert f"{dx} is {100 * shares.at[dx, name]:.2f} % of {name} and {100 * whole[dx]:.2f} % of the whole" in message
    assert "Choose another split.seed, or a larger split.max_deviation" in message
    write_params({"split.max_deviation": largest + 0.001})
    run()


@pytest.mark.usefixtures("raw_folder")
@pytest.mark.parametrize(("column", "kind"), [("image_id", "images"), ("lesion_id", "lesions")])
def test_an_overlap_stops_the_stage(monkeypatch: pytest.MonkeyPatch, write_params: WriteParams, column: str, kind: str) -> None:
    planted, deal = [], splitting.deal

    def leaky_deal(frame: pd.DataFrame, **options: int) -> dict[str, pd.DataFrame]:
        splits = deal(frame, **options)
        leaked = splits["train"][:1].copy()
        if column == "lesion_id":
            leaked["image_id"] = "ISIC_8888888"
        planted.append(leaked[column].iloc[0])
        return {**splits, "test": pd.concat([splits["test"], leaked])}

    monkeypatch.setattr(splitting, "deal", leaky_deal)
    write_params(SMALL)
    assert f"{kind} in two splits: " in (message := refused()) and f"{planted[0]} in train and test" in message


def test_ham10000_is_dealt_evenly(ham10000: Path) -> None:
    metadata = pd.read_csv(ham10000 / "HAM10000_metadata.csv")
    for fold in (0, 4):
        splits = splitting.deal(metadata, folds=5, validation_folds=5, fold=fold, seed=0)
        assert splitting.check_disjoint(splits) == {"images": 0, "lesions": 0}
        assert splitting.check_classes(splits, max_deviation=2.0) < 0.1
        shares = [len(splits[name]) / len(metadata) for name in SPLIT_NAMES]
        assert shares == pytest.approx([0.64, 0.16, 0.20], abs=0.005)
