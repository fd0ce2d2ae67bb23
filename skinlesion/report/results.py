"""Chapters on what was measured of all test images: headline, classes, operating points, calibration, abstaining, baselines."""

from collections.abc import Iterable
from typing import Any

from skinlesion.diagnoses import CLASSES
from skinlesion.report.blocks import Block, Chapter, Facts, Paragraph, Table
from skinlesion.report.figures import Plots
from skinlesion.report.formats import HEADLINE, count, decimal, describe_rule, level, measured, metric_rows, name_of
from skinlesion.report.inputs import Inputs

BRIEF = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "mel_sensitivity", "mel_specificity")


def headline(inputs: Inputs, plots: Plots) -> Chapter:
    """The metrics of test, per image and per lesion, beside the majority class; histology alone; the members."""
    test = inputs.metrics["evaluate"]["test"]
    once = "Test is read once by the pipeline, after every choice that it makes on validation. All values lie from 0 to 1."
    blocks: list[Block] = [
        Facts([("test images / lesions", f"{count(test['images'])} / {count(test['lesions'])}")]),
        Paragraph(once),
        headline_table(inputs, HEADLINE),
        *proven(inputs, HEADLINE),
        *spread_tables(inputs),
        classes_table(test),
        plots.draw("evaluate_confusion_share"),
        plots.draw("evaluate_roc"),
    ]
    return Chapter("results", "Results on test", blocks)


def headline_table(inputs: Inputs, metrics: Iterable[str]) -> Table:
    """Metrics of test: an image each, a lesion each (the mean of its images), the majority class."""
    test = inputs.metrics["evaluate"]["test"]
    majority = test["majority_baseline"]
    rows = metric_rows(metrics, test, test["per_lesion"], majority)
    header = ["metric", "each image", "each lesion (mean of its images)", f"majority class ({majority['class']})"]
    return Table(f"Headline metrics of test; {level(inputs.metrics['evaluate']['bootstrap'])}", header, rows)


def proven(inputs: Inputs, metrics: Iterable[str]) -> list[Block]:
    """Metrics among histologically proven images alone, beside all images."""
    groups = inputs.metrics["subgroups"]
    if groups["histology_only"] is None:
        return [Paragraph("No test image is proven by histology.")]
    both = {"all": groups["all"], "proven by histology": groups["histology_only"]}
    rows = [["images / lesions", *(f"{count(content['images'])} / {count(content['lesions'])}" for content in both.values())]]
    rows += metric_rows(metrics, *both.values())
    return [Table(f"Histologically proven test images alone; {level(groups['bootstrap'])}", ["metric", *both], rows)]


def spread_tables(inputs: Inputs) -> list[Table]:
    """Each member alone; none where there is but one."""
    members, spread = inputs.metrics["evaluate"]["members"], inputs.metrics["evaluate"]["spread"]["test"]
    if len(members) < 2:
        return []
    overall = [{metric: values[key] for metric, values in spread.items()} for key in ("mean", "sd")]
    columns = [*(member["test"] for member in members.values()), *overall]
    rows = [[name_of(metric), *(decimal(each.get(metric)) for each in columns)] for metric in spread]
    return [Table("Each network alone, test", ["metric", *members, "mean", "standard deviation"], rows)]


def classes_table(test: dict[str, Any]) -> Table:
    """Every class against the rest."""
    names = ("precision", "recall", "specificity", "f1", "auc", "average_precision")
    rows = []
    for dx in CLASSES:
        each = test["per_class"][dx]
        f1 = decimal(each["f1"], test["intervals"].get(f"f1_{dx}"))
        rows.append([dx, count(each["support"]), *(f1 if name == "f1" else decimal(each[name]) for name in names)])
    header = ["diagnosis", "images", "precision", "recall", "specificity", "F1", "AUC", "average precision"]
    return Table("Each class against the rest, test", header, rows)


def baselines(inputs: Inputs, plots: Plots) -> Chapter:
    """What metadata alone and colours alone give."""
    found, test = inputs.metrics["baselines"], inputs.metrics["evaluate"]["test"]
    rows = metric_rows(HEADLINE, found["metadata"], found["colors"], test)
    table = Table(f"Test; {level(found['bootstrap'])}", ["metric", "metadata alone", "colours alone", "the classifier"], rows)
    models = "Trained on the same lesions: a model of age, sex and site alone, and one of the image's colour histogram alone."
    return Chapter("baselines", "Baselines", [Paragraph(models), table, plots.draw("baselines")])


def calibration(inputs: Inputs, plots: Plots) -> Chapter:
    """Scores of the probabilities before and after calibration; slopes of each class."""
    blocks = [
        Facts([("method, fitted on validation", f"{inputs.metrics['evaluate']['calibration']} scaling")]),
        Paragraph("Lower is better, but for resolution."),
        calibration_table(inputs, CALIBRATION),
        recalibration_table(inputs.metrics["evaluate"]["test"]),
        plots.draw("evaluate_reliability"),
    ]
    return Chapter("calibration", "Calibration", blocks)


CALIBRATION = {
    "ece": "calibration error, bins of equal width",
    "ece_equal_mass": "calibration error, bins of equal mass",
    "nll": "negative log-likelihood (nats)",
    "brier": "Brier score",
    "brier_reliability": "Brier: reliability",
    "brier_resolution": "Brier: resolution",
    "brier_uncertainty": "Brier: uncertainty",
}


def calibration_table(inputs: Inputs, scores: dict[str, str]) -> Table:
    """Scores before and after, validation (where it was fitted) and test."""
    evaluated = inputs.metrics["evaluate"]
    rows = [
        [name, *(decimal(evaluated[split][f"{score}_{when}"]) for split in ("val", "test") for when in ("before", "after"))]
        for score, name in scores.items()
    ]
    header = ["score", "validation before", "validation after", "test before", "test after"]
    return Table("Probabilities before and after calibration", header, rows)


def recalibration_table(test: dict[str, Any]) -> Table:
    """Intercept and slope of each class's calibrated log odds (0 and 1 are ideal)."""
    rows = [[dx, *(decimal(test["recalibration"][dx][name]) for name in ("intercept", "slope"))] for dx in CLASSES]
    ideal = "0 and 1 are ideal; a dash where they have no estimate"
    caption = f"Intercept and slope of each class's calibrated log odds, test ({ideal})"
    return Table(caption, ["diagnosis", "intercept", "slope"], rows)


def operating_points(inputs: Inputs, plots: Plots) -> Chapter:
    """What was asked on validation, what came on test, and predictive values elsewhere."""
    sweep = inputs.metrics["threshold_sweep"]
    facts = [
        ("flagged", "an image whose summed probability of the diagnoses flagged reaches the threshold"),
        ("diagnoses flagged", ", ".join(sweep["classes"])),
        ("positive test images", f"{count(sweep['test']['positives'])} of {count(sweep['test']['images'])}"),
        ("AUC, validation", measured(sweep["val"], "auc")),
        ("AUC, test", measured(sweep["test"], "auc")),
    ]
    figures = [plots.draw(name) for name in ("threshold_sweep_operating_points", "threshold_sweep_decision_curve")]
    blocks: list[Block] = [Facts(facts), points_table(inputs), predictive_table(sweep), *figures]
    return Chapter("operating-points", "Operating points", blocks)


def points_table(inputs: Inputs) -> Table:
    """Thresholds: asked and got on validation, achieved on test."""
    sweep = inputs.metrics["threshold_sweep"]
    rows = []
    for name, point in sweep["points"].items():
        chosen = [name, describe_rule(point), f"{point['threshold']:.4f}"]
        got = [decimal(point["val"][key]) for key in ("sensitivity", "specificity")]
        achieved = [
            decimal(point["test"][key], point["intervals"].get(key))
            for key in ("sensitivity", "specificity", "precision", "flagged")
        ]
        rows.append([*chosen, *got, *achieved])
    header = ["point", "asked on validation", "threshold", "sensitivity, val", "specificity, val"]
    header += [f"{name}, test" for name in ("sensitivity", "specificity", "precision", "flagged")]
    caption = f"Operating points for {sweep['target']}, chosen on validation, audited on test; {level(sweep['bootstrap'])}"
    return Table(caption, header, rows, labels=2)


def predictive_table(sweep: dict[str, Any]) -> Table:
    """Predictive values and number needed to biopsy at prevalences."""
    rows = []
    for name, point in sweep["points"].items():
        for prevalence, values in point["at_prevalence"].items():
            intervals = values["intervals"]
            needed = decimal(values["number_needed_to_biopsy"], intervals["number_needed_to_biopsy"], digits=1)
            rows.append([name, prevalence, *(decimal(values[key], intervals[key]) for key in ("ppv", "npv")), needed])
    header = ["point", "prevalence", "positive predictive value", "negative predictive value", "number needed to biopsy"]
    return Table("At other prevalences, from sensitivity and specificity of test", header, rows)


def selective(inputs: Inputs, plots: Plots) -> Chapter:
    """Leaving images unanswered, and sets of diagnoses."""
    found = inputs.metrics["selective"]
    answered = {
        "coverage": "answered",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "mel_sensitivity": "melanoma sensitivity",
        "melanomas_missed": "melanomas answered wrongly",
    }
    sets = {
        "coverage": "hold the truth",
        "coverage_mel": "of melanomas",
        "size": "diagnoses in the set",
        "singletons": "sets of one",
    }
    only = f"Only images with confidence above a threshold of validation are answered, test; {level(found['bootstrap'])}"
    held = "Conformal sets, made to hold the true diagnosis with the probability on the left, test"
    blocks = [
        Facts([("area under risk over coverage, test (lower is better)", measured(found["risk_coverage"]["test"], "aurc"))]),
        asked_table(only, "answered on validation", answered, found["abstention"]),
        asked_table(held, "asked", sets, found["conformal"]),
        plots.draw("selective_risk_coverage"),
    ]
    return Chapter("selective", "Abstaining, and sets of diagnoses", blocks)


def asked_table(caption: str, asked: str, names: dict[str, str], found: dict[str, Any]) -> Table:
    """For each level that was asked, the metrics of test in `names`."""
    rows = [[chosen, *(measured(each["test"], metric) for metric in names)] for chosen, each in found.items()]
    return Table(caption, [asked, *names.values()], rows)
