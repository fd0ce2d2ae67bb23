"""What the demo says and keeps, without a browser; tests/browser opens the page itself."""

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import words
from app.answers import SHOWN, Answer, Handed, Memory, answer, make_map
from app.csv_table import csv_table
from app.examples import draw_example
from app.markup import bars, legend, overview
from app.opening import Opened, list_engines, list_models, open_predictor, stamp
from app.overlays import overlay
from app.printed import printed_page
from skinlesion.artifacts.patients import Patient
from skinlesion.diagnoses import CLASSES, DIAGNOSES
from skinlesion.serving.explainer import Explainer
from skinlesion.serving.operating_point import OperatingPoint, Rate
from skinlesion.serving.prediction import Prediction
from skinlesion.serving.predictor import SYNTHETIC_WARNING, Predictor
from skinlesion.serving.uploads import decode_upload
from tests.serving.predictor_cases import encoded, lesion_image, make_workspace

POINT = OperatingPoint("recall_0.90", "mel", ("mel",), 0.448, Rate(0.8, 0.54, 1.0), Rate(0.93, 0.86, 0.99), "test", 0.95)
SHARES = dict(zip(CLASSES, (0.1, 0.05, 0.15, 0.0001, 0.2, 0.4999, 0.0), strict=True))
SOURCE = {"model": "ensemble", "engine": "torch", "classifier_sha256": "cafe"}
PREDICTION = Prediction(SHARES, POINT, 0.2, False, {"0.9": ("nv", "mel"), "0.95": None}, ())
HOSTILE = "<script>alert(1)</script> [x](http://x) `_*.png"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    root = make_workspace(tmp_path_factory.mktemp("workspace"), [{"backbone": "squeezenet1_1", "metadata": True}])
    return open_predictor(root, "ensemble", "torch", stamp(root))


def upload(name: str, data: bytes = b"") -> Handed:
    """A file that was uploaded once."""
    return Handed(name, data, f"upload of {name}")


def test_percentages_never_claim_more_than_they_know_and_stay_on_one_line() -> None:
    said = [words.in_percent(share) for share in (0, 1e-6, 0.1234, 0.99999)]
    assert said == ["0.0\u00a0%", "<\u00a00.1\u00a0%", "12.3\u00a0%", ">\u00a099.9\u00a0%"]
    figure = {"value": 0.99999, "low": 0.5, "high": 1.0}
    assert words.metric("accuracy", figure) == ">\u00a099.9\u00a0% (50.0 to 100.0\u00a0%)"
    assert words.metric("macro_auc", figure) == "1.000 (0.500 to 1.000)"
    assert "flagged <\u00a01\u00a0% of" in words.point_sentence(replace(POINT, sensitivity=Rate(0.001)))


@pytest.mark.parametrize(
    ("score", "flagged", "text"),
    [
        (0.2, False, "Not flagged for melanoma: its probability, 20.0 %, is below the threshold of 44.8 %. Not flagged does not"),
        (0.5, True, "Flagged for melanoma: its probability, 50.0 %, reaches the threshold of 44.8 %."),
        (0.448, True, "Flagged for melanoma: its probability, 44.8 %, reaches the threshold of 44.8 %."),
        (0.44799, False, "its probability, 44.799 %, is below the threshold of 44.800 %."),
    ],
)
def test_a_flag_is_said_with_numbers_that_tell_why(score: float, flagged: bool, text: str) -> None:
    sentence = words.flag_sentence(replace(PREDICTION, score=score, flagged=flagged))
    assert sentence is not None and text in sentence.replace("\u00a0", " ")


def test_what_is_said_of_a_prediction() -> None:
    assert words.most_probable(PREDICTION).replace("\u00a0", " ") == (
        "Most probable of seven: melanocytic nevus, 50.0 %. It is the largest of seven probabilities, not a diagnosis."
    )
    first, second = (text.replace("\u00a0", " ") for text in words.set_sentences(PREDICTION))
    assert first.startswith("Set for 90 %: melanocytic nevus, melanoma. Sets made like this")
    assert second.startswith("Set for 95 %: none can be given")
    alone = replace(PREDICTION, point=None, score=None, flagged=None, sets={})
    assert words.flag_sentence(alone) is None and words.set_sentences(alone) == []
    assert words.point_sentence(POINT).endswith("In brackets: intervals of 95\u00a0% confidence.")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("recall_0.90", "sensitivity ≥ 90 % on validation"),
        ("specificity_0.975", "specificity ≥ 97.5 % on validation"),
        ("guaranteed_0.85", "sensitivity ≥ 85 %, promised"),
        ("cost_10", "1 miss = 10 false alarms"),
        ("youden", "balanced (Youden)"),
        ("recall_high", "recall_high"),
        ("mine", "mine"),
    ],
)
def test_operating_points_have_names_in_words(name: str, text: str) -> None:
    assert words.name_point(name).replace("\u00a0", " ") == text
    assert words.rule_of_point(replace(POINT, name=name)).startswith(f"`{name}`")


def test_a_promise_has_its_probability_and_its_price() -> None:
    promise = replace(POINT, name="guaranteed_0.85")
    assert "the probability `threshold_sweep.guarantee` in params.yaml" in words.rule_of_point(promise)
    why = "flags every image, because validation has too few lesions for the promise."
    for name, text in (("guaranteed_0.85", why), ("recall_0.90", "flags every image.")):
        every = replace(POINT, name=name, threshold=0.0)
        assert words.rule_of_point(every) == f"`{name}`: {text}"
        sentence = words.flag_sentence(replace(PREDICTION, point=every, flagged=True))
        assert sentence is not None and "\u00a0" in sentence
        told = f"Flagged for melanoma: this operating point {text} The probability is 20.0 %."
        assert sentence.replace("\u00a0", " ") == told
        table = bars(replace(PREDICTION, point=every), calibrated=True)
        assert "from 0" not in table and "tick" not in table and "counts for the flag" in table


def test_bars_have_the_seven_names_and_mark_the_target_by_words() -> None:
    table = bars(PREDICTION, calibrated=True)
    assert [table.count(name) for name in DIAGNOSES.values()] == [1] * 7
    assert table.count("flagged from 44.8\u00a0%") == table.count("hatched") == table.count('class="tick"') == 1
    assert "width: 49.99%" in table and "not calibrated" not in table
    group = replace(POINT, target="malignant", classes=("mel", "bcc", "akiec"))
    table = bars(replace(PREDICTION, point=group), calibrated=False)
    assert table.count("counts for the flag") == 3 and "tick" not in table and "not calibrated" in table


def test_names_of_files_are_never_markup() -> None:
    refused = Answer(upload(HOSTILE), error="The file is empty.")
    table = overview([refused], POINT)
    assert "<script" not in table and "&lt;script&gt;" in table
    escaped = words.escape_markdown(f"{HOSTILE}\nnext")
    assert "\\<script\\>" in escaped and "\\[x\\]\\(http\\:" in escaped and "\\`\\_\\*" in escaped and "\n" not in escaped


def test_a_name_that_a_spreadsheet_would_compute_is_text() -> None:
    table = csv_table([Answer(upload("=1+1.png"), error="Why."), Answer(upload("a.png"), prediction=PREDICTION)], SOURCE)
    first, second = csv.DictReader(io.StringIO(table))
    assert first["file"] == "'=1+1.png" and first["error"] == "Why." and first["most_probable"] == ""
    assert first["notes"] == second["notes"] == ""
    assert second["most_probable"] == "nv" and second["flagged"] == "no" and second["sets"] == "0.9: nv mel"


def test_a_drawn_image_is_called_so_in_the_table(opened: Opened) -> None:
    handed = [Handed("drawn", draw_example("nv"), "nv", drawn=True), upload("mole.png", encoded(lesion_image(), "PNG"))]
    table = csv_table((answer(Memory(), opened, each, Patient(), None) for each in handed), SOURCE)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["notes"] for row in rows] == [words.DRAWN, ""]
    assert [row["warnings"] for row in rows] == [SYNTHETIC_WARNING] * 2


def test_examples_are_always_the_same_and_one_a_diagnosis() -> None:
    drawn = [draw_example(dx) for dx in CLASSES]
    draw_example.cache_clear()
    assert len(set(drawn)) == 7 and draw_example(CLASSES[0]) == drawn[0]
    assert all(decode_upload(data).image.size == (400, 300) for data in drawn)


def test_a_map_over_an_image_has_no_hue_but_its_own() -> None:
    image, heat = lesion_image(), np.zeros((70, 90), np.uint8)
    heat[20:40, 30:60] = 255
    colors = overlay(image, heat, opacity=1)
    plain = np.asarray(overlay(image, heat, opacity=0))
    assert (plain == plain[..., :1]).all()
    assert colors.getpixel((40, 30)) == (253, 231, 36) and colors.getpixel((0, 0)) == (68, 1, 84)  # viridis at 1 and 0


def test_the_network_runs_once_an_image_and_patient(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Patient] = []
    logits = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, squares, known: runs.extend(known) or logits(self, squares, known))
    memory, image = Memory(), upload("mole.png", encoded(lesion_image(), "PNG"))
    points = [opened.predictor.find_point(name) for name in ("everything", "nothing", "everything")]
    answers = [answer(memory, opened, image, Patient(), point) for point in points]
    assert [each.prediction.flagged for each in answers if each.prediction] == [True, False, True]
    older = answer(memory, opened, image, Patient(age=80), points[0])
    assert runs == [Patient(), Patient(age=80)]
    [expected] = opened.predictor.predict([lesion_image()], [Patient()], point="everything")
    assert answers[0].prediction == answers[2].prediction == expected
    assert older.prediction != expected
    assert older.prediction == opened.predictor.predict([lesion_image()], [Patient(age=80)], point="everything")[0]
    memory.forget_others(replace(opened, key="another training"), [image])
    assert memory == Memory()


def test_a_large_image_is_judged_as_it_is_and_kept_small(opened: Opened) -> None:
    # A dark strip: as it is, only too dark; as it is shown, too small as well.
    original = lesion_image(width=2000, height=60).point(lambda value: value // 8)
    answered = answer(Memory(), opened, upload("strip.png", encoded(original, "PNG")), Patient(), None)
    assert answered.seen is not None and answered.seen.shown.size == (SHOWN, 24)
    [expected] = opened.predictor.predict([original], point=None)
    assert answered.prediction is not None and answered.prediction.probabilities == expected.probabilities
    [warning] = opened.predictor.quality(original)
    assert "under-exposed" in warning and len(opened.predictor.quality(answered.seen.shown)) == 2
    assert answered.prediction.warnings == expected.warnings and warning in expected.warnings


def test_a_map_is_of_the_original_and_drawn_at_the_size_that_is_shown(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, original = Memory(), lesion_image(width=2000, height=1500)
    answered = answer(memory, opened, upload("large.png", encoded(original, "PNG")), Patient(), None)
    whole = opened.predictor.explain(original, diagnosis="mel", method="LayerCAM")
    drawn: list[tuple[int, int]] = []
    explain = Explainer.explain
    monkeypatch.setattr(
        Explainer, "explain", lambda self, image, *rest, **named: drawn.append(image.size) or explain(self, image, *rest, **named)
    )
    asked = {"method": "LayerCAM", "diagnosis": "mel"}
    made = make_map(memory, opened, answered, Patient(), **asked)
    expected = Image.fromarray(np.round(255 * whole).astype(np.uint8)).resize((SHOWN, 600), Image.Resampling.BOX)
    np.testing.assert_allclose(made / 255, np.asarray(expected) / 255, atol=2 / 255)
    assert make_map(memory, opened, answered, Patient(), **asked) is made and drawn == [(SHOWN, 600)]
    memory.forget_others(opened, [])
    assert memory == Memory()


def test_what_is_known_of_an_image_is_found_without_reading_it(opened: Opened) -> None:
    image, another = (encoded(lesion_image(seed), "PNG") for seed in (0, 1))
    memory = Memory()
    first = answer(memory, opened, Handed("mole.png", image, "1"), Patient(), None)
    second = answer(memory, opened, Handed("mole.png", another, "2"), Patient(), None)
    assert first.prediction != second.prediction
    # Each touch makes the page anew, and its files with it, from bytes that nobody need look at again.
    again = answer(memory, opened, Handed("mole.png", b"", "1"), Patient(), None)
    assert again.prediction == first.prediction and again.seen is first.seen
    memory.forget_others(opened, [Handed("mole.png", b"", "2")])
    assert [key for _, key in memory.seen] == ["2"]


def test_a_refused_file_has_its_reason_and_nothing_else(opened: Opened) -> None:
    refused = answer(Memory(), opened, upload("text.jpg", b"no image"), Patient(), None)
    assert refused.error == "This is not an image of a known kind: send a JPEG or a PNG."
    assert refused.seen is None and refused.prediction is None


def test_the_printed_page_stands_alone(opened: Opened) -> None:
    point = opened.predictor.find_point("recall_0.90")
    memory, patient = Memory(), Patient(45, "female", "back")
    handed = [upload(HOSTILE, encoded(lesion_image())), upload("text.jpg", b"no image")]
    first, second = (answer(memory, opened, each, patient, point) for each in handed)
    heat = make_map(memory, opened, first, patient, method="GradCAM", diagnosis="mel")
    now = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    shown = ("mel", "GradCAM", heat)
    page = printed_page(opened.predictor, [(first, shown), (second, None)], patient, point, opacity=0.4, now=now)
    assert "2024-02-29 12:30 UTC" in page and "age 45 years, sex female, site back" in page
    assert page.count("data:image/jpeg;base64,") == 3 and page.count("Not for clinical use.") >= 3
    assert "<script" not in page and "http" not in page.replace("http-equiv", "").replace("http://x", "")
    note = words.network_of_map("onnx-int8")
    assert "32 bits" in note and note not in page and note in legend("onnx-int8") and legend("torch") == legend("onnx")
    of_eight_bits = replace(opened.predictor, engine="onnx-int8")
    assert printed_page(of_eight_bits, [(first, shown), (second, None)], patient, point, opacity=0.4, now=now).count(note) == 1
    assert page.count(words.SYNTHETIC) == 1 and SYNTHETIC_WARNING not in page
    assert [text for text, is_warning in words.remarks(first) if is_warning] == []
    assert "f00d" in page and "Not answered. This is not an image" in page


def test_models_engines_and_another_training(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    assert list_models(tmp_path) == ["ensemble"] and list_engines(tmp_path) == ["torch"]
    before = stamp(tmp_path)
    assert stamp(tmp_path) == before
    make_workspace(tmp_path, [{}, {}])
    assert stamp(tmp_path) != before and list_models(tmp_path) == ["ensemble", "base-0", "base-1"]
    for member in ("base-0", "base-1"):
        assert list_engines(tmp_path) == ["torch"]
        (tmp_path / "models/export" / member).mkdir(parents=True)
        (tmp_path / "models/export" / member / "model.onnx").touch()
    assert list_engines(tmp_path) == ["torch", "onnx"]
