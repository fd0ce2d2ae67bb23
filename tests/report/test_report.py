"""The stage `report`: its numbers are those of the metrics files, what is missing is named, and the page needs nothing else."""

import re
from pathlib import Path

import pytest

from skinlesion.base.files import read_json, write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.report.figures import Plots
from skinlesion.report.formats import bounded, count, decimal, percent
from skinlesion.report.inputs import METRIC_FILES
from stages import report
from tests.conftest import WriteParams, refuses
from tests.report.report_cases import INTERVAL, MISSING, Page, edit, write_groups, write_report


def known_numbers() -> set[str]:
    """Every number of the files that the stage reads, as text with up to four decimals, as a count and in per cent."""
    files = [*Path("metrics").rglob("*.json"), *Path("models").rglob("*.json"), Path("data/raw/provenance.json")]
    files.append(Path("plots/subgroups/groups.csv"))
    found = [re.findall(r"(?<![a-z])\d+(?:\.\d+)?(?:e-\d+)?", file.read_text(encoding="utf-8")) for file in files]
    numbers = {float(number) for each in found for number in each}
    styles = (*(f"{{:.{digits}f}}" for digits in range(5)), "{:,.0f}", "{:g}")
    return {style.format(number) for style in styles for number in numbers} | {f"{100 * number:.1f}" for number in numbers}


def test_every_number_is_of_a_file(run_folder: Path) -> None:
    html, markdown = write_report()
    known = known_numbers()
    # Means, standard deviations and sums are not computed here, so that what has a decimal point stands in a file.
    for text in (Page(html).text.partition("All parameters")[0], markdown):
        shown = re.findall(r"(?<![\w.])\d[\d,]*\.\d+(?![\w.]|\.\d)", text)
        assert len(shown) > 80
        assert [number for number in shown if number.replace(",", "") not in known and number not in known] == []


@pytest.mark.parametrize(
    ("file", "keys", "shown"),
    [
        ("evaluate", ("test", "macro_auc"), "both"),
        ("evaluate", ("test", "per_lesion", "mel_sensitivity"), "both"),
        ("evaluate", ("test", "intervals", "accuracy", "low"), "both"),
        ("evaluate", ("test", "majority_baseline", "accuracy"), "both"),
        ("evaluate", ("test", "ece_after"), "both"),
        ("evaluate", ("test", "per_class", "mel", "recall"), "page"),
        ("evaluate", ("test", "recalibration", "nv", "slope"), "page"),
        ("threshold_sweep", ("points", "recall_0.90", "test", "sensitivity"), "both"),
        ("threshold_sweep", ("points", "recall_0.90", "at_prevalence", "0.05", "ppv"), "page"),
        ("subgroups", ("histology_only", "macro_auc"), "both"),
        ("subgroups", ("worst", "macro_auc", "value"), "both"),
        ("selective", ("abstention", "0.8", "test", "accuracy"), "page"),
        ("selective", ("conformal", "0.9", "test", "coverage_mel"), "page"),
        ("baselines", ("metadata", "macro_auc"), "page"),
        ("gradcam", ("energy_ratio", "mean"), "page"),
        ("neighbors", ("share_of_truth", "by_class", "bcc", "value"), "page"),
        ("neighbors", ("metrics", "accuracy", "vote", "low"), "page"),
        ("neighbors", ("agreement", "disagree", "value"), "page"),
        ("neighbors", ("error_detection", "confidence", "value"), "page"),
        ("train/base-0", ("val", "macro_f1"), "page"),
    ],
)
def test_a_changed_metric_changes_the_report(quick: Path, file: str, keys: tuple[str, ...], shown: str) -> None:
    before = write_report()
    edit(f"metrics/{file}.json", *keys, value=7.54321)  # no metric is so large
    after = write_report()
    assert "7.543" not in before[0] + before[1]
    assert "7.543" in Page(after[0]).text
    assert ("7.543" in after[1]) == (shown == "both")


def test_an_interval_is_that_of_its_metric(quick: Path) -> None:
    for split, metric, name in (("test", "macro_f1", "macro F1"), ("test", "mel_sensitivity", "melanoma sensitivity")):
        edit("metrics/evaluate.json", split, "intervals", metric, value={"low": 0.0321, "high": 0.9876})
        (row,) = [line for line in write_report()[1].splitlines() if line.startswith(f"| {name} |") and "sex:" not in line][:1]
        assert "[0.032, 0.988]" in row.split("|")[2]
        edit("metrics/evaluate.json", split, "intervals", metric, value=INTERVAL)


def test_a_changed_count_changes_table_and_diagram(run_folder: Path) -> None:
    edit("metrics/failures.json", "missed_melanomas", "images", value=987)
    edit("metrics/split.json", "images", "val", value=4321)
    html, markdown = write_report()
    missed = "missed melanomas (another diagnosis is the most probable)"
    assert f"- {missed}: 987 of 10 images" in markdown and f"{missed} 987 of 10 images" in Page(html).text
    assert "4,321 images of 58 lesions" in html[html.index("<svg") :] and "4,321" in Page(html).cells


def test_the_page_needs_nothing_else_and_its_drawings_do_not_collide(run_folder: Path) -> None:
    html = write_report()[0]
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "img", "image", "iframe", "object", "embed"), tag
        for name, value in attributes.items():
            assert not name.startswith("on")
            if tag != "a" and name in ("src", "href", "xlink:href", "srcset", "data"):
                assert (value or "").startswith("#")
    assert "@import" not in html and not re.search(r"url\((?!#)", html) and "data:image" not in html
    named = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(named) == len(set(named)), "an id stands twice"
    asked = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert asked <= set(named), "a link or a clip path leads nowhere"
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) >= 10
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in drawings)


def test_it_says_so_on_top_where_the_images_are_synthetic(quick: Path) -> None:
    html, markdown = write_report()
    assert 'role="alert">Synthetic images' in html and "> **Synthetic images" in markdown
    edit("data/raw/provenance.json", "synthetic", value=False)
    edit("data/splits/facts.json", "synthetic", value=False)
    html, markdown = write_report()
    assert "Synthetic images" not in html + markdown and "Vienna" in html
    assert "Not for clinical use" in html and "Not for clinical use" in markdown


@pytest.mark.parametrize(
    ("path", "message"),
    [
        *((f"metrics/{name}.json", f"{name}.json not found: run the stage that writes it first") for name in METRIC_FILES),
        ("metrics/train/base-0.json", "metrics/train/base-0.json not found"),
        ("models/classifier/base-0/config.json", "config.json not found"),
        ("plots/evaluate/roc.csv", "plots/evaluate/roc.csv not found"),
        ("plots/subgroups/groups.csv", "groups.csv not found: run `subgroups` first"),
        ("dvc.yaml", "dvc.yaml not found in .*: run from the project's root"),
    ],
)
def test_a_missing_file_is_named(run_folder: Path, path: str, message: str) -> None:
    Path(path).unlink()
    refuses(message, report.main)
    assert not Path("report").exists()


def test_a_classifier_of_another_split_is_refused(quick: Path) -> None:
    edit("models/classifier/ensemble.json", "fingerprint", value="0" * 64)
    refuses("the classifier is not of the lists in data/splits: run `dvc repro`", report.main)


def test_a_plot_that_is_not_defined_is_refused(run_folder: Path) -> None:
    refuses("defines no plot 'nothing', which the report shows", Plots().draw, "nothing")


def test_hostile_strings_are_shown_and_not_run(quick: Path, write_params: WriteParams) -> None:
    hostile = "<script>alert('x')</script>|`<b>`"
    write_params({"split.links": hostile})
    write_groups(hostile)
    edit("metrics/threshold_sweep.json", "target", value=hostile)
    edit("data/raw/provenance.json", "citation", value=hostile)
    edit("metrics/subgroups.json", "worst", "accuracy", "group", value=hostile)
    html, markdown = write_report()
    assert "<script" not in html and "<b>" not in html
    assert html.count("&lt;script&gt;") >= 4 and "<script>alert" in Page(html).text
    assert "<script" not in markdown and "&lt;script&gt;alert('x')&lt;/script&gt;\\|" in markdown
    (row,) = [line for line in markdown.splitlines() if line.startswith("| accuracy | sex: &lt;")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 6  # five cells


def test_a_run_without_masks_histology_or_intervals_is_told_as_such(quick: Path) -> None:
    edit("metrics/gradcam.json", "energy_ratio", value=None)
    edit("metrics/subgroups.json", "histology_only", value=None)
    for metric in ("accuracy", "mel_auc"):
        edit("metrics/subgroups.json", "worst", metric, value=None)
    html, markdown = write_report()
    assert "no lesion masks" in html and "No test image is proven by histology" in html
    assert "No test image is proven by histology" in markdown and "none is large enough" in markdown


def test_what_the_neighbours_tell_stands_with_its_interval(quick: Path) -> None:
    bounds = {"low": 0.2121, "high": 0.4646}
    agree, disagree = {"images": 83, "value": 0.7568}, {"images": 14, "value": 0.4242}
    values = {"agree": agree, "disagree": disagree, "difference": {"value": 0.3434}}
    edit("metrics/neighbors.json", "agreement", value={name: each | bounds for name, each in values.items()})
    edit("metrics/neighbors.json", "error_detection", "difference", value={"value": -0.2, "low": -0.3, "high": -0.1})
    edit("metrics/neighbors.json", "searched", "lesions", value=987)
    page = Page(write_report()[0])
    cells = " / ".join(page.cells).replace("\xa0", " ")
    assert "the vote agrees with the network / 83 / 0.757 [0.212, 0.465]" in cells
    assert "it does not / 14 / 0.424 [0.212, 0.465] / difference / \u2013 / +0.343 [+0.212, +0.465]" in cells
    assert "/ difference / -0.200 [-0.300, -0.100]" in cells
    assert "training lesions, each by its nearest image 987" in page.text


def test_several_networks_are_told_one_by_one(quick: Path) -> None:
    one = {"name": "base-0", "backbone": "resnet18"}
    edit("models/classifier/ensemble.json", "members", value=[one, one | {"name": "base-1"}])
    edit("metrics/train/base-0.json", "images", "synthetic", value=40)
    for path in ("models/classifier/base-0/config.json", "metrics/train/base-0.json"):
        write_json(Path(path.replace("base-0", "base-1")), read_json(Path(path)))
    edit("metrics/train/base-1.json", "best_epoch", value=4321)
    edit("metrics/evaluate.json", "members", "base-1", value={"test": {"macro_auc": 0.4567}})
    html = write_report()[0]
    page = Page(html)
    assert "2 networks averaged" in page.text and "0.457" in page.cells and "4,321" in page.cells
    assert "+ 40 drawn by a VAE" in html and "ensembling / satisfied" in " / ".join(page.cells)


def test_numbers_are_written_in_one_way() -> None:
    assert decimal(0.75258, {"low": 0.65, "high": 0.8539}) == "0.753 [0.650,\xa00.854]"
    assert decimal(None, INTERVAL) == decimal(None) == count(None) == percent(None) == "\u2013"
    assert decimal(0.5, {"low": None, "high": None}) == decimal(0.5) == "0.500"
    assert bounded({"value": -0.0123, "low": -0.1, "high": 0.2}, signed=True) == "-0.012 [-0.100,\xa0+0.200]"
    assert (count(10015), percent(0.1234), decimal(13.5862, digits=1)) == ("10,015", "12.3 %", "13.6")


def test_two_reports_on_one_run_are_equal(run_folder: Path) -> None:
    assert write_report() == write_report()
    assert {path.name for path in Path("report").iterdir()} == {"index.html", "report.md"}


def test_a_small_group_is_marked_cell_by_cell(quick: Path) -> None:
    cells = Page(write_report()[0]).cells
    row = cells[cells.index("sex: male", cells.index("melanoma lesions")) :][:9]
    assert row[:4] == ["sex: male", "50", "42", "5"]
    assert [cell.endswith("\xa0*") for cell in row[4:9]] == [False, False, True, True, True]
    assert all(cell.startswith("0.512 [0.250,") for cell in row[4:9])
    assert set(CLASSES) <= set(cells)


@pytest.mark.parametrize(
    ("path", "keys", "message"),
    [
        ("metrics/evaluate.json", ("bootstrap", "draws"), "metrics/evaluate.json, bootstrap lacks 'draws'"),
        ("metrics/split.json", ("class_counts",), "metrics/split.json lacks 'class_counts'"),
        ("metrics/train/base-0.json", ("epochs",), "metrics/train/base-0.json lacks 'epochs'"),
        ("data/raw/provenance.json", ("licence",), "data/raw/provenance.json: licence: missing"),
        ("models/classifier/ensemble.json", ("members",), "ensemble.json: members: missing: run `assemble` again"),
    ],
)
def test_a_number_that_is_missing_is_named(run_folder: Path, path: str, keys: tuple[str, ...], message: str) -> None:
    edit(path, *keys, value=MISSING)
    refuses(message, report.main)
