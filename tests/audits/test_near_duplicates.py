"""The extra `near-duplicates`: lesions hidden under two ids are found, others are not merged, and `split` takes the list."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from extras import near_duplicates
from skinlesion.artifacts.raw import image_path
from skinlesion.artifacts.tables import METADATA_COLUMNS, write_table
from skinlesion.audits.near_duplicates.alignment import NO_FIT, Fit, correlate, fit_similarity
from skinlesion.audits.near_duplicates.keypoints import SIDE, Keypoints, find_keypoints, inside_ring, to_gray
from skinlesion.audits.near_duplicates.search import Verified, sibling_pairs
from skinlesion.audits.near_duplicates.tables import count_crossing, describe_pairs, score_shares
from skinlesion.base.files import write_json
from skinlesion.data.sample.view import draw_views
from skinlesion.data.splitting import merge_lesions, read_links
from tests.conftest import WriteParams, refuses
from tests.stage_cases import PATIENT, stage_runner, write_lists, write_prepared

Run = Callable[..., tuple[dict[str, Any], pd.DataFrame]]
HIDDEN = 5  # lesions whose two images have different ids
KNOWN = 2  # lesions whose two images have one id
SINGLE = 12
FOLDER = Path("data/extras/near_duplicates")
PAIRS, LINKS = FOLDER / "pairs.csv", FOLDER / "links.csv"


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, str, str, Image.Image]]:
    """image_id, lesion_id, dx and image: two views of `HIDDEN` lesions under two ids and of `KNOWN` under one, then others."""
    rows = []
    for number in range(HIDDEN + KNOWN + SINGLE):
        dx = ("nv", "mel", "bcc")[number % 3]
        seed, views = np.random.SeedSequence([7, number]), 2 if number < HIDDEN + KNOWN else 1
        for view, (image, _) in enumerate(draw_views(dx, seed, views=views, width=200, height=150)):
            lesion = f"L{number:02d}" + ("ab"[view] if number < HIDDEN else "")
            rows.append((f"I{view}{number:02d}", lesion, dx, image))
    return rows


def hidden_pairs() -> set[tuple[str, str]]:
    return {(f"I0{number:02d}", f"I1{number:02d}") for number in range(HIDDEN)}


def write_inputs(rows: list[tuple[str, str, str, Image.Image]]) -> pd.DataFrame:
    """data/raw, data/splits and as much of data/prepared as is asked for; the metadata."""
    frame = pd.DataFrame([row[:3] for row in rows], columns=["image_id", "lesion_id", "dx"]).assign(**PATIENT)
    for image_id, *_, image in rows:
        image_path(image_id).parent.mkdir(parents=True, exist_ok=True)
        image.save(image_path(image_id), quality=95)
    write_table(frame.sample(frac=1, random_state=0), Path("data/raw/metadata.csv"), METADATA_COLUMNS)
    write_json(Path("data/raw/provenance.json"), {"source": "sample", "synthetic": True, "licence": "CC0", "counts": {}})
    write_prepared(["one"], np.zeros((1, 2, 2, 3)))
    second = frame["image_id"].str.startswith("I1")
    write_lists({"train": frame[~second], "val": frame[second][:1], "test": frame[second][1:]})
    return frame


@pytest.fixture
def run_stage(workspace: Path, write_params: WriteParams) -> Run:
    """Run the stage with overrides; its metrics and the table of pairs."""
    run = stage_runner(write_params, near_duplicates.main, "near_duplicates", metrics="extras/near_duplicates")
    return lambda **overrides: (run(**overrides), pd.read_csv(PAIRS))


def as_set(pairs: pd.DataFrame) -> set[tuple[str, str]]:
    return set(pairs[["image_id_a", "image_id_b"]].itertuples(index=False, name=None))


def test_hidden_siblings_are_found_others_are_not_and_the_split_takes_the_list(run_stage: Run, drawn: Any) -> None:
    metadata = write_inputs(drawn)
    metrics, table = run_stage()
    accepted = table[table["accepted"]]
    assert as_set(accepted) == hidden_pairs()
    assert accepted["score"].is_monotonic_decreasing and accepted["same_dx"].all()
    counted = {"pairs": HIDDEN, "same_dx": HIDDEN, "different_dx": 0, "by_dx": {"bcc": 1, "mel": 2, "nv": 2}}
    assert metrics["accepted"] == counted | {"mirrored": accepted["mirrored"].sum()}
    assert metrics["crossing_the_split"] == {"train-val": 1, "train-test": HIDDEN - 1, "val-test": 0}
    assert metrics["known_siblings"] == {"pairs": KNOWN, "reached": 1.0, "verified": 1.0, "recall_on_known_siblings": 1.0}
    assert metrics["false_matches"]["accepted_share_of_different_dx"] == metrics["false_matches"]["expected_among_same_dx"] == 0
    links = read_links(LINKS)
    assert as_set(links) == hidden_pairs()
    merged = merge_lesions(metadata, links)
    assert metadata["lesion_id"].nunique() - merged["lesion_id"].nunique() == HIDDEN
    before = PAIRS.read_bytes()
    write_lists({"train": merged[1:-1], "val": merged[:1], "test": merged[-1:]})
    run_stage()
    assert PAIRS.read_bytes() == before  # what is linked stays in the list


def test_without_mirror_images_only_straight_pairs_are_found(run_stage: Run, drawn: Any) -> None:
    write_inputs(drawn)
    both = run_stage()[1].query("accepted")
    straight = run_stage(mirrored=False)[1].query("accepted")
    assert 0 < len(straight) < len(both)
    assert as_set(straight) == as_set(both[~both["mirrored"]])


def test_a_match_of_two_diagnoses_is_said_and_not_linked(run_stage: Run, drawn: Any, caplog: pytest.LogCaptureFixture) -> None:
    write_inputs([(image_id, lesion, "bkl" if image_id == "I100" else dx, image) for image_id, lesion, dx, image in drawn])
    with caplog.at_level(logging.WARNING):
        metrics, table = run_stage()
    assert "I000 (nv) and I100 (bkl) match" in caplog.text
    assert as_set(table[table["accepted"]]) == hidden_pairs()
    assert as_set(read_links(LINKS)) == hidden_pairs() - {("I000", "I100")}
    assert metrics["accepted"]["different_dx"] == 1
    assert metrics["false_matches"]["accepted_share_of_different_dx"] == 1 / metrics["candidates"]["different_dx"]


def test_thresholds_decide_what_is_accepted(run_stage: Run, drawn: Any) -> None:
    write_inputs(drawn)
    table = run_stage()[1]
    inliers = int(table["inliers"].iloc[1])
    correlation = float(table["correlation"].median())
    strict = run_stage(min_inliers=inliers, min_correlation=correlation)[1]
    assert strict["accepted"].equals((table["inliers"] >= inliers) & (table["correlation"] >= correlation))
    assert 0 < strict["accepted"].sum() < table["accepted"].sum()


@pytest.mark.parametrize(("turn", "zoom"), [(0.0, 1.0), (40.0, 1.0), (-130.0, 0.8), (90.0, 1.25)])
def test_a_known_turn_and_zoom_is_recovered(drawn: Any, turn: float, zoom: float) -> None:
    gray = to_gray(np.asarray(drawn[0][3]))
    matrix = cv2.getRotationMatrix2D((100, 75), -turn, zoom)  # OpenCV turns against the clock
    moved = cv2.warpAffine(gray, matrix, (200, 150), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    fit = fit_similarity(find_keypoints(gray), find_keypoints(moved))
    assert fit.inliers >= 15
    assert abs(fit.turn - zoom * np.exp(1j * np.deg2rad(turn))) < 0.02
    assert abs(fit.turn * (100 + 75j) + fit.shift - (100 + 75j)) < 1
    inside = (inside_ring(gray), inside_ring(moved))
    assert correlate(gray, moved, inside, fit) > 0.97
    assert correlate(gray, moved, inside, fit._replace(turn=-fit.turn, shift=fit.shift + 2 * fit.turn * (100 + 75j))) < 0.9


def test_mirrored_features_are_those_of_the_mirror_image(drawn: Any) -> None:
    gray = to_gray(np.asarray(drawn[0][3]))
    mirror = find_keypoints(np.ascontiguousarray(gray[:, ::-1]))
    fit = fit_similarity(find_keypoints(gray).mirrored(), mirror)
    assert fit.inliers > len(mirror) / 4
    assert abs(fit.turn - 1) < 0.02 and abs(fit.shift) < 2
    assert fit_similarity(find_keypoints(gray), mirror).inliers < fit.inliers / 3


def test_correlation_is_numpys_where_both_are_seen() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (150, 210)).astype(np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4.0)
    first, second = (np.ascontiguousarray(part) for part in (blurred[:, :200], blurred[:, 10:]))
    everywhere = np.full((150, 200), 255, np.uint8)
    assert correlate(first, second, (everywhere, everywhere), Fit(9, 1, -10)) > 0.98
    assert correlate(first, 255 - first, (everywhere, everywhere), Fit(9, 1, 0)) == pytest.approx(-1, abs=1e-3)
    assert correlate(first, second, (everywhere, everywhere), Fit(9, 1, -190)) == 0.0
    smooth = [cv2.GaussianBlur(image, (0, 0), 2.0) for image in (first, second)]
    half = everywhere.copy()
    half[:, 100:] = 0
    expected = np.corrcoef(smooth[0][:, :100].ravel(), smooth[1][:, :100].ravel())[0, 1]
    assert correlate(first, second, (half, everywhere), Fit(9, 1, 0)) == pytest.approx(expected, abs=1e-6)


def test_the_ring_is_left_out_and_a_dark_lesion_is_not() -> None:
    rows, columns = np.mgrid[:150, :200]
    distance = np.hypot(rows - 75, columns - 100)
    gray = np.where(distance < 110, 180, 5).astype(np.uint8)
    gray[distance < 20] = 10
    inside = inside_ring(gray)
    assert set(np.unique(inside)) == {0, 255}
    assert inside[75, 100] == 255 and inside[0, 0] == 0 and not inside[distance > 109].any()


def test_every_image_is_brought_to_one_size_and_an_empty_one_has_no_features() -> None:
    assert to_gray(np.zeros((450, 600, 3), np.uint8)).shape == (150, SIDE)
    assert to_gray(np.zeros((64, 32, 3), np.uint8)).shape == (SIDE, 100)
    blank = find_keypoints(np.full((150, 200), 128, np.uint8))
    assert len(blank) == 0 and isinstance(blank.mirrored(), Keypoints)
    assert fit_similarity(blank, blank) == NO_FIT


def test_pairs_are_counted_across_the_split_and_scored() -> None:
    pairs = pd.DataFrame({"image_id_a": ["a", "a", "c"], "image_id_b": ["b", "c", "d"]})
    splits = {"train": pd.Series(["a", "b"]), "val": pd.Series(["c"]), "test": pd.Series(["d"])}
    assert count_crossing(pairs, splits) == {"train-val": 1, "train-test": 0, "val-test": 1}
    metadata = pd.DataFrame({"image_id": list("abc"), "lesion_id": ["1", "2", "2"], "dx": ["nv", "nv", "mel"]})
    assert sibling_pairs(metadata["lesion_id"]) == [(1, 2)]
    found = [Verified(0, 1, 10, 0.5, 1.0, 0.0, False), Verified(0, 2, 20, -0.5, 1.0, 0.0, False)]
    table = describe_pairs(reversed(found), metadata)
    assert table["score"].tolist() == [5.0, 0.0] and table["same_dx"].tolist() == [True, False]
    shares = score_shares({"others": table, "siblings": table[:0]})
    assert shares.query("score == 5")["share"].tolist() == [1.0, 0.0]
    assert set(shares["pairs"]) == {"two ids, one diagnosis", "two ids, two diagnoses"}


def test_a_broken_image_is_named(run_stage: Run, drawn: Any) -> None:
    write_inputs(drawn)
    image_path("I003").write_bytes(b"no picture")
    refuses(r"I003\.jpg is not readable", run_stage)
    assert not Path("metrics/extras/near_duplicates.json").exists()


@pytest.mark.parametrize(("name", "value"), [("neighbors", 0), ("min_inliers", 2), ("min_correlation", 1.5)])
def test_impossible_params_are_refused(run_stage: Run, name: str, value: float) -> None:
    refuses(f"near_duplicates.{name}", run_stage, **{name: value})
