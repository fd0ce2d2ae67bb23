"""What the page says, as sentences: for a reader who knows skin and not machine learning."""

import re
from collections.abc import Mapping
from typing import Any

from app.answers import Answer
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.serving.engines import Engine
from skinlesion.serving.operating_point import OperatingPoint, percent
from skinlesion.serving.prediction import Prediction
from skinlesion.serving.predictor import SYNTHETIC_WARNING

TITLE = "Skin lesion classifier: research demo"
NOT_FOR_CLINICAL_USE = "Not for clinical use. Research software: it must not be used to diagnose or to decide on treatment."
SYNTHETIC = (
    "This classifier was trained on drawn images, not on photographs. Its answers say nothing about skin: they only show how the "
    "page works."
)
DRAWN = "This image was drawn by a program. What the classifier says of it shows how the page works, and nothing about skin."
NOT_HARMLESS = "Not flagged does not mean harmless."
NOT_A_DIAGNOSIS = "It is the largest of seven probabilities, not a diagnosis."

ABOUT = f"""
- You give it a close-up of **one** skin lesion, taken with a dermatoscope. A neural network, which learnt from such images with
  known diagnoses, spreads 100 % over seven of them: {", ".join(DIAGNOSES.values())}. It knows no others: healthy skin, a rash or
  a coffee cup also get seven percentages that sum to 100 %.
- The percentages are **calibrated** where the page does not say otherwise: of all that are near 70 %, about 70 in a hundred come
  true, among images like those that it was tested on and **counted over all diagnoses**. For a single diagnosis they can be 10 to
  20 points off: in two runs on photographs, about half of the images with 60 to 80 % for basal cell carcinoma had it.
- They also depend on how common each diagnosis was among the training images, and that is not how common it is in a
  practice. Images unlike those, of another camera, of skin or lesions that it has not seen, can get percentages that are wrong
  without any warning.
- **Flagged** means that one probability reaches a threshold, which was chosen beforehand. A low threshold misses fewer and
  raises more false alarms, a high one the opposite; that choice is the *operating point*.
- A **set of diagnoses** is a list that is made so that it holds the true diagnosis in a stated share of such lesions. A long
  list means that the classifier is unsure.
- The **heat map** shows where in the picture the network found what speaks for a diagnosis. It does not show where a lesion is,
  and says nothing on whether the answer is right.
- What you hand in stays in the memory of the computer that runs this page while the page is open. Nothing is written to disk.
"""

METRICS = {
    "accuracy": "Share of test images whose most probable diagnosis is the true one",
    "balanced_accuracy": "The same, every diagnosis counting alike, the rare ones too (balanced accuracy)",
    "macro_f1": "Macro F1: precision and sensitivity in one figure, every diagnosis counting alike",
    "macro_auc": "Macro AUC: how well each diagnosis is told from the others at all thresholds (0.5 is chance)",
    "mel_sensitivity": "Melanomas whose most probable diagnosis is melanoma (sensitivity)",
    "mel_specificity": "Other lesions whose most probable diagnosis is another one (specificity)",
}
AREAS = ("macro_f1", "macro_auc")  # not shares of images, so without a percent sign

PERCENT = "\u00a0%"  # a number and its sign stay on one line

# By the rule in an operating point's name: how it is called in a list, and what its threshold was chosen for; what it reaches
# on other images differs. {0} is the number in the name, {1} the same as a percentage.
_RULES = {
    "recall": ("sensitivity ≥ {1} on validation", "the highest threshold that finds at least {1} of the target in validation"),
    "specificity": (
        "specificity ≥ {1} on validation",
        "the lowest threshold that leaves at least {1} of the others in validation unflagged",
    ),
    "guaranteed": (
        "sensitivity ≥ {1}, promised",
        "the highest threshold with the promise that it flags at least {1} of new lesions of the target, if they are like those "
        "of validation; the promise holds with the probability `threshold_sweep.guarantee` in params.yaml",
    ),
    "cost": ("1 miss = {0} false alarms", "the cheapest threshold in validation, where a missed one costs {0} false alarms"),
    "youden": ("balanced (Youden)", "the threshold with the largest sum of sensitivity and specificity in validation"),
}


def unbroken(text: str) -> str:
    """With percentages that stay on one line."""
    return re.sub(r"([<>]) (?=[\d.]+ %)", "\\1\u00a0", text).replace(" %", PERCENT)


def in_percent(share: float) -> str:
    """A share from 0 to 1, as `skinlesion.serving.operating_point.percent` says it, on one line."""
    return unbroken(percent(share))


def metric(name: str, measured: Mapping[str, float | None]) -> str:
    """A figure of `METRICS` with its interval, `value`, `low` and `high`; a share in percent."""
    value, low, high = (measured[key] for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    if name in AREAS:
        ends = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
        return f"{value:.3f}{ends}"
    ends = "" if low is None or high is None else f" ({in_percent(low).removesuffix(PERCENT)} to {in_percent(high)})"
    return f"{in_percent(value)}{ends}"


def name_point(name: str) -> str:
    """An operating point in a list, in words where its name is made as `threshold-sweep` makes names."""
    return _in_words(name, 0) or name


def rule_of_point(point: OperatingPoint) -> str:
    """What an operating point's threshold was chosen for, or that it flags every image, behind its name in Markdown."""
    rule = _flags_every_image(point) if point.threshold == 0 else _in_words(point.name, 1)
    return f"`{point.name}`: {rule}." if rule else f"`{point.name}`"


def _flags_every_image(point: OperatingPoint) -> str:
    """Of a point whose threshold is 0. Where too few lesions allow no promise, `threshold-sweep` keeps it by that."""
    is_promise = point.name.startswith("guaranteed_") and _in_words(point.name, 0)
    return f"flags every image{', because validation has too few lesions for the promise' if is_promise else ''}"


def _in_words(name: str, which: int) -> str:
    rule, _, number = name.partition("_")
    if rule not in _RULES or not re.fullmatch(r"(\d+(\.\d+)?)?", number):
        return ""
    return _RULES[rule][which].format(number, f"{100 * float(number or 0):g}{PERCENT}")


def most_probable(prediction: Prediction) -> str:
    """The first of the seven, and what it is not."""
    dx, share = prediction.top(1)[0]
    return f"Most probable of seven: {DIAGNOSES[dx]}, {in_percent(share)}. {NOT_A_DIAGNOSIS}"


def flag_sentence(prediction: Prediction) -> str | None:
    """Flagged or not, and by which numbers; None where no operating point was applied."""
    if prediction.point is None or prediction.score is None:
        return None
    target = prediction.point.target_in_words
    if prediction.point.threshold == 0:
        every = _flags_every_image(prediction.point)
        return f"Flagged for {target}: this operating point {every}. The probability is {in_percent(prediction.score)}."
    score, threshold = _told_apart(prediction.score, prediction.point.threshold)
    if prediction.flagged:
        return f"Flagged for {target}: its probability, {score}, reaches the threshold of {threshold}."
    return f"Not flagged for {target}: its probability, {score}, is below the threshold of {threshold}. {NOT_HARMLESS}"


def _told_apart(score: float, threshold: float) -> tuple[str, str]:
    """Both as percentages, with as many decimals as show which is larger."""
    texts = in_percent(score), in_percent(threshold)
    for decimals in range(2, 16):
        if score == threshold or texts[0] != texts[1]:
            break
        texts = f"{100 * score:.{decimals}f}{PERCENT}", f"{100 * threshold:.{decimals}f}{PERCENT}"
    return texts


def set_sentences(prediction: Prediction) -> list[str]:
    """The conformal sets; nothing where there are none."""
    sentences = []
    for level, within in prediction.sets.items():
        share = f"{100 * float(level):g}{PERCENT}"
        if within is None:
            sentences.append(f"Set for {share}: none can be given, because validation had too few lesions to promise that.")
        else:
            names = ", ".join(DIAGNOSES[dx] for dx in within)
            sentences.append(
                f"Set for {share}: {names}. Sets made like this hold the true diagnosis of about {share} of lesions like those "
                "of validation."
            )
    return sentences


def describe_card(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a classifier is, of `Predictor.card`, as names and values."""
    networks = [
        f"{member['name']}: {member['backbone']}, epoch {member['epoch']}, code {member['git_commit'] or 'not in git'}"
        for member in card["members"]
    ]
    drawn = "drawn images" if card["data"]["synthetic"] else "photographs"
    return [
        ("Model and engine", f"{card['model']}, {card['engine']}"),
        ("Networks", "; ".join(networks)),
        ("Trained on", f"{drawn} of the source {card['data']['source']}"),
        ("Fingerprint of the split", card["fingerprint"]),
        ("sha256 of the training pixels", card["images_sha256"]),
        (
            "What the network sees",
            f"{card['size']} x {card['size']} pixels (fit {card['fit']}, colours {card['color_constancy']})",
        ),
        ("Takes age, sex and site", "yes" if card["needs_metadata"] else "no"),
        ("Views averaged", card["test_time"]),
        ("Calibration", card["calibration"] or "none: this is one member alone"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in card["versions"].items())),
    ]


def point_sentence(point: OperatingPoint) -> str:
    """What the point means, with the confidence of its intervals."""
    level = "" if point.confidence is None else f" In brackets: intervals of {100 * point.confidence:g} % confidence."
    return unbroken(f"{point.sentence}{level}")


def notes_of(answered: Answer) -> list[str]:
    """What an image is and what was done to it; nothing of one that was refused."""
    drawn = [DRAWN] if answered.handed.drawn else []
    return [*drawn, *answered.seen.notes] if answered.seen else []


def remarks(answered: Answer) -> list[tuple[str, bool]]:
    """What to know before the answer is read, and whether it is a warning. The page tells of drawn training images above."""
    if answered.seen is None or answered.prediction is None:
        return []
    warnings = [warning for warning in answered.prediction.warnings if warning != SYNTHETIC_WARNING]
    return [(note, False) for note in notes_of(answered)] + [(warning, True) for warning in warnings]


def escape_markdown(text: str) -> str:
    """A file's name within Markdown: no character of it is markup, a link, an image or HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:&@/])", r"\\\1", re.sub(r"\s+", " ", text))


def network_of_map(engine: Engine) -> str:
    """That a map is of another network than the probabilities, where it is; otherwise nothing."""
    return "The map is of the network in 32 bits, the probabilities are of the one in 8 bits." if engine == "onnx-int8" else ""


def option(dx: str, first: str) -> str:
    """A diagnosis in the choice of a map."""
    return f"{DIAGNOSES[dx]} (most probable)" if dx == first else DIAGNOSES[dx]
