"""Sections on what was measured of all test images: headline, classes, operating points, calibration, abstaining, baselines."""

from __future__ import annotations

from typing import Any

from skinlesion.diagnoses import CLASSES
from skinlesion.report.blocks import Block, Facts, Paragraph, Section, Table
from skinlesion.report.figures import Plots
from skinlesion.report.formats import (
    HEADLINE,
    count,
    decimal,
    describe_rule,
    level,
    measured,
    name_of,
    rate,
)
from skinlesion.report.inputs import Inputs

BRIEF = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "mel_sensitivity", "mel_specificity")


def headline(inputs: Inputs, plots: Plots) -> Section:
    """The metrics of test, per image and per lesion, beside the majority class; histology alone; the members."""
    test = inputs.metrics["evaluate"]["test"]
    return Section(
        "results",
        "Results on test",
        [
            Facts([("test images / lesions", f"{count(test['images'])} / {count(test['lesions'])}")]),
            Paragraph(
                "Test is read once by the pipeline, after every choice that it makes on validation. All values lie from 0 to 1."
            ),
            headline_table(inputs, list(HEADLINE)),
            *proven(inputs, list(HEADLINE)),
            *spread_tables(inputs),
            classes_table(test),
            plots.draw("evaluate_confusion_share"),
            plots.draw("evaluate_roc"),
        ],
    )


def headline_table(inputs: Inputs, metrics: list[str]) -> Table:
    """Metrics of test: an image each, a lesion each (the mean of its images), the majority class."""
    test = inputs.metrics["evaluate"]["test"]
    lesions, majority = test["per_lesion"], test["majority_baseline"]
    rows = [
        [name_of(metric), measured(test, metric), measured(lesions, metric), rate(majority.get(metric))]
        for metric in metrics
        if metric in test
    ]
    header = ["metric", "each image", "each lesion (mean of its images)", f"majority class ({majority['class']})"]
    return Table(f"Headline metrics of test; {level(inputs.metrics['evaluate']['bootstrap'])}", header, rows)


def proven(inputs: Inputs, metrics: list[str]) -> list[Block]:
    """Metrics among histologically proven images alone, beside all images."""
    groups = inputs.metrics["subgroups"]
    if groups["histology_only"] is None:
        return [Paragraph("No test image is proven by histology.")]
    both = {"all": groups["all"], "proven by histology": groups["histology_only"]}
    rows = [["images / lesions", *(f"{count(content['images'])} / {count(content['lesions'])}" for content in both.values())]]
    rows += [
        [name_of(metric), *(measured(content, metric) for content in both.values())]
        for metric in metrics
        if metric in groups["all"]
    ]
    return [Table(f"Histologically proven test images alone; {level(groups['bootstrap'])}", ["metric", *both], rows)]


def spread_tables(inputs: Inputs) -> list[Table]:
    """Each member alone; none where there is but one."""
    evaluated = inputs.metrics["evaluate"]
    if len(evaluated["members"]) < 2:
        return []
    rows = [
        [
            name_of(metric),
            *(rate(member["test"].get(metric)) for member in evaluated["members"].values()),
            rate(values["mean"]),
            rate(values["sd"]),
        ]
        for metric, values in evaluated["spread"]["test"].items()
    ]
    return [Table("Each network alone, test", ["metric", *evaluated["members"], "mean", "standard deviation"], rows)]


def classes_table(test: dict[str, Any]) -> Table:
    """Every class against the rest."""
    names = ("precision", "recall", "specificity", "f1", "auc", "average_precision")
    rows = []
    for dx in CLASSES:
        each = test["per_class"][dx]
        f1 = rate(each["f1"], test["intervals"].get(f"f1_{dx}"))
        rows.append([dx, count(each["support"]), *(f1 if name == "f1" else rate(each[name]) for name in names)])
    header = ["diagnosis", "images", "precision", "recall", "specificity", "F1", "AUC", "average precision"]
    return Table("Each class against the rest, test", header, rows)


def baselines(inputs: Inputs, plots: Plots) -> Section:
    """What metadata alone and colours alone give."""
    found, test = inputs.metrics["baselines"], inputs.metrics["evaluate"]["test"]
    rows = [
        [name_of(metric), *(measured(found[model], metric) for model in ("metadata", "colors")), measured(test, metric)]
        for metric in HEADLINE
        if metric in found["metadata"]
    ]
    table = Table(f"Test; {level(found['bootstrap'])}", ["metric", "metadata alone", "colours alone", "the classifier"], rows)
    said = Paragraph(
        "Trained on the same lesions: a model of age, sex and site alone, and one of the image's colour histogram alone."
    )
    return Section("baselines", "Baselines", [said, table, plots.draw("baselines")])


def calibration(inputs: Inputs, plots: Plots) -> Section:
    """Scores of the probabilities before and after calibration; slopes of each class."""
    return Section(
        "calibration",
        "Calibration",
        [
            Facts([("method, fitted on validation", f"{inputs.metrics['evaluate']['calibration']} scaling")]),
            Paragraph("Lower is better, but for resolution."),
            calibration_table(inputs, CALIBRATION),
            recalibration_table(inputs.metrics["evaluate"]["test"]),
            plots.draw("evaluate_reliability"),
        ],
    )


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
        [said, *(decimal(evaluated[split][f"{score}_{when}"]) for split in ("val", "test") for when in ("before", "after"))]
        for score, said in scores.items()
    ]
    header = ["score", "validation before", "validation after", "test before", "test after"]
    return Table("Probabilities before and after calibration", header, rows)


def recalibration_table(test: dict[str, Any]) -> Table:
    """Intercept and slope of each class's calibrated log odds (0 and 1 are ideal)."""
    rows = [[dx, *(decimal(test["recalibration"][dx][name]) for name in ("intercept", "slope"))] for dx in CLASSES]
    caption = (
        "Intercept and slope of each class's calibrated log odds, test (0 and 1 are ideal; a dash where they have no estimate)"
    )
    return Table(caption, ["diagnosis", "intercept", "slope"], rows)


def operating_points(inputs: Inputs, plots: Plots) -> Section:
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
    return Section("operating-points", "Operating points", blocks)


def points_table(inputs: Inputs) -> Table:
    """Thresholds: asked and got on validation, achieved on test."""
    sweep = inputs.metrics["threshold_sweep"]
    rows = []
    for name, point in sweep["points"].items():
        chosen = [name, describe_rule(point), f"{point['threshold']:.4f}"]
        got = [rate(point["val"][key]) for key in ("sensitivity", "specificity")]
        achieved = [
            rate(point["test"][key], point["intervals"].get(key))
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
            rows.append([name, prevalence, *(rate(values[key], intervals[key]) for key in ("ppv", "npv")), needed])
    header = ["point", "prevalence", "positive predictive value", "negative predictive value", "number needed to biopsy"]
    return Table("At other prevalences, from sensitivity and specificity of test", header, rows)


def selective(inputs: Inputs, plots: Plots) -> Section:
    """Leaving images unanswered, and sets of diagnoses."""
    found = inputs.metrics["selective"]
    rows = [
        [
            asked,
            *(
                measured(each["test"], name)
                for name in ("coverage", "accuracy", "balanced_accuracy", "mel_sensitivity", "melanomas_missed")
            ),
        ]
        for asked, each in found["abstention"].items()
    ]
    header = [
        "answered on validation",
        "answered",
        "accuracy",
        "balanced accuracy",
        "melanoma sensitivity",
        "melanomas answered wrongly",
    ]
    sets = [
        [asked, *(measured(each["test"], name) for name in ("coverage", "coverage_mel", "size", "singletons"))]
        for asked, each in found["conformal"].items()
    ]
    risk = found["risk_coverage"]["test"]
    return Section(
        "selective",
        "Abstaining, and sets of diagnoses",
        [
            Facts([("area under risk over coverage, test (lower is better)", measured(risk, "aurc"))]),
            Table(
                f"Only images with confidence above a threshold of validation are answered, test; {level(found['bootstrap'])}",
                header,
                rows,
            ),
            Table(
                "Conformal sets, made to hold the true diagnosis with the probability on the left, test",
                ["asked", "hold the truth", "of melanomas", "diagnoses in the set", "sets of one"],
                sets,
            ),
            plots.draw("selective_risk_coverage"),
        ],
    )
