"""CLAIM 2024 and TRIPOD+AI against a run: what it satisfies, with the artifact, and what it leaves open.

Numbers are those of the published checklists, the words are ours and short: fill in the originals for a publication.
CLAIM: Tejani et al., Radiology: Artificial Intelligence 6(4), e240300 (2024), 44 items.
TRIPOD+AI: Collins et al., BMJ 385, e078378 (2024), 27 items, some in parts.
"""

from collections import Counter
from collections.abc import Iterable

from skinlesion.report import evidence
from skinlesion.report.blocks import Chapter, Paragraph, Table
from skinlesion.report.evidence import PARTLY, STATUSES, Answer, Evidence, lacks, of_people, stands_in
from skinlesion.report.inputs import Inputs

PAGE = "`report/index.html`"
USE, LIMITS = f"{PAGE}, Intended use", f"{PAGE}, Limits"
PERFORMANCE = "`metrics/evaluate.json`, `metrics/threshold_sweep.json`, `metrics/baselines.json`, `metrics/selective.json`"
MISSING = "`metrics/split.json` (`missing`); an unknown value is a value of its own, no image is dropped"
Item = tuple[str, str, Evidence]

CLAIM: tuple[Item, ...] = (
    ("1", "title names the AI method", stands_in(f"{PAGE}, title")),
    ("2", "structured summary", lacks("`report/report.md` sums results up; the rest is left to an author", status=PARTLY)),
    ("3", "background, intended use and role", lacks(f"{USE}; the clinical background is not reviewed", status=PARTLY)),
    ("4", "aims and hypotheses", lacks("no hypothesis was written down before")),
    ("5", "prospective or retrospective", of_people(f"{PAGE}, Data: retrospective", status="satisfied")),
    ("6", "goal of the study", stands_in(USE)),
    ("7", "data sources", stands_in("`data/raw/provenance.json`")),
    (
        "8",
        "inclusion and exclusion",
        of_people(f"{PAGE}, Data: no image is left out; of people, the source's publication tells", status=PARTLY),
    ),
    ("9", "preprocessing", stands_in("`params.yaml` (`prepare`), `models/classifier/*/config.json`")),
    ("10", "selection of data subsets", stands_in("whole images, none selected: `params.yaml` (`prepare`, `split`)")),
    ("11", "de-identification", of_people("left to the source's publication")),
    ("12", "missing data", stands_in(MISSING)),
    ("13", "image acquisition", of_people("devices and settings of an image are not recorded")),
    ("14", "definition of the reference standard", evidence.reference_standard),
    ("15", "rationale of the reference standard", lacks("not given")),
    ("16", "source of the annotations", evidence.reference_standard),
    ("17", "annotation of the test set", evidence.proven_test),
    ("18", "variability of raters", lacks("the source has one diagnosis a lesion")),
    ("19", "assignment to partitions", evidence.splits),
    ("20", "level at which partitions are disjoint", evidence.disjoint),
    ("21", "intended sample size", lacks("not calculated: the data set is as large as it is")),
    ("22", "description of the model", stands_in("`models/classifier/*/config.json`, `models/classifier/ensemble.json`")),
    ("23", "software", stands_in("`models/classifier/*/config.json` (`versions`), `requirements.txt`")),
    ("24", "initialisation", evidence.initialization),
    ("25", "training", stands_in("`params.yaml` (`train`), `metrics/train/`, `plots/assemble/`")),
    ("26", "selection of the final model", stands_in("`train.select_by`, on validation; `metrics/train/` (`best_epoch`)")),
    ("27", "ensembling", evidence.ensembling),
    ("28", "metrics of performance", stands_in(PERFORMANCE)),
    ("29", "significance and uncertainty", evidence.uncertainty),
    ("30", "robustness or sensitivity analysis", evidence.extra("robustness")),
    ("31", "explainability and its validation", evidence.explained),
    ("32", "evaluation on internal data", stands_in("`metrics/evaluate.json` (`test`)")),
    ("33", "testing on external data", evidence.extra("external")),
    ("34", "trial registration", lacks("not registered")),
    ("35", "numbers included and excluded", stands_in(f"{PAGE}, Data, diagram; `metrics/split.json`")),
    ("36", "characteristics of each partition", evidence.partitions_described),
    ("37", "performance with uncertainty", evidence.uncertainty),
    ("38", "diagnostic performance with precision", stands_in("`metrics/threshold_sweep.json`, `models/operating_points.json`")),
    ("39", "analysis of failures", stands_in("`data/failures/failures.csv`, `metrics/failures.json`")),
    ("40", "limitations", stands_in(LIMITS)),
    ("41", "implications for practice", lacks(f"{USE}: none, not for clinical use", status=PARTLY)),
    ("42", "protocol or technical details", evidence.code),
    ("43", "availability of software, model and data", evidence.availability),
    ("44", "funding", lacks("not stated")),
)

TRIPOD: tuple[Item, ...] = (
    ("1", "title: prediction model, population, outcome", lacks(f"{PAGE}, title; the population is not named", status=PARTLY)),
    ("2", "abstract", lacks("`report/report.md` sums results up; it is not a structured abstract", status=PARTLY)),
    ("3a", "healthcare context and existing models", lacks("not reviewed")),
    ("3b", "target population and intended users", stands_in(USE)),
    ("3c", "known health inequalities", lacks(f"{LIMITS}: skin type is not recorded; no literature is reviewed", status=PARTLY)),
    ("4", "objectives", lacks(f"{USE}; no objective was written down before", status=PARTLY)),
    ("5a", "sources of data", stands_in("`data/raw/provenance.json`")),
    ("5b", "dates of the data", of_people("not in the data set")),
    ("6a", "setting and centres", of_people(f"{PAGE}, Data: the two sites of HAM10000", status=PARTLY)),
    ("6b", "eligibility", of_people("left to the source's publication")),
    ("6c", "treatments", of_people("not in the data set")),
    ("7", "data preparation", stands_in("`params.yaml` (`prepare`), alike for every image")),
    ("8a", "outcome", evidence.reference_standard),
    ("8b", "assessors of the outcome", of_people("left to the source's publication")),
    ("8c", "blinding of the assessment", of_people("diagnoses are older than the model, blinding is unknown", status=PARTLY)),
    ("9a", "choice of predictors", stands_in("`models/classifier/*/config.json` (`needs_metadata`); never `dx_type`")),
    ("9b", "definition of predictors", stands_in(f"{USE}: the image, with metadata where it says so")),
    ("9c", "subjective predictors", lacks("who photographed, and what was framed, is not recorded")),
    ("10", "study size", lacks("not calculated: the data set is as large as it is")),
    ("11", "missing data", stands_in(MISSING)),
    ("12a", "use of the data, partitions", evidence.splits),
    ("12b", "handling of predictors", stands_in("`models/classifier/*/config.json` (`mean`, `std`, `size`, `fit`)")),
    ("12c", "model, tuning, internal validation", stands_in("`params.yaml`, `metrics/train/`, `metrics/evaluate.json`")),
    ("12d", "heterogeneity across clusters, methods", evidence.subgroups),
    ("12e", "measures and plots of performance", stands_in(PERFORMANCE)),
    ("12f", "model updating, methods", stands_in("`models/calibration.json`: recalibrated on validation")),
    (
        "12g",
        "how predictions were calculated",
        stands_in("`data/predictions/`: logits and calibrated probabilities; `models/calibration.json`"),
    ),
    ("13", "class imbalance", evidence.imbalance),
    ("14", "fairness, methods", evidence.subgroups),
    ("15", "output and thresholds", stands_in("`data/predictions/`, `models/operating_points.json`")),
    ("16", "training against evaluation data", evidence.differences),
    ("17", "ethical approval", of_people("not stated: a public data set")),
    ("18a", "funding", lacks("not stated")),
    ("18b", "conflicts of interest", lacks("not stated")),
    ("18c", "protocol", lacks("none was prepared; `params.yaml` is what was done")),
    ("18d", "registration", lacks("not registered")),
    ("18e", "availability of data", stands_in("`data/raw/provenance.json` (source, licence)")),
    ("18f", "availability of code", evidence.code),
    ("19", "patient and public involvement", lacks("none")),
    ("20a", "flow of participants", stands_in(f"{PAGE}, Data, diagram (images and lesions; people are not named)")),
    ("20b", "characteristics of participants", evidence.partitions_described),
    ("20c", "comparison with the development data", evidence.extra("external", lacking="predictors are not compared")),
    (
        "21",
        "numbers and events in each analysis",
        stands_in("`metrics/split.json`, `metrics/evaluate.json` (`per_class`), `metrics/subgroups.json`"),
    ),
    ("22", "full model", stands_in("`models/classifier/`: weights and config; `models/calibration.json`")),
    ("23a", "performance with intervals and subgroups", evidence.subgroups),
    ("23b", "heterogeneity across clusters, results", evidence.subgroups),
    ("24", "model updating, results", stands_in("`metrics/evaluate.json`: before and after calibration")),
    ("25", "interpretation", lacks("left to an author")),
    ("26", "limitations", stands_in(LIMITS)),
    ("27a", "poor or unavailable input", evidence.extra("robustness", lacking="no input is refused for its quality")),
    ("27b", "interaction and expertise of users", lacks(f"{USE}: none, not for clinical use", status=PARTLY)),
    ("27c", "next steps", lacks("left to an author")),
)

CHECKLISTS = {"claim": ("CLAIM 2024", CLAIM), "tripod": ("TRIPOD+AI", TRIPOD)}


def answers(items: Iterable[Item], inputs: Inputs) -> list[tuple[str, str, Answer]]:
    """Number, subject and answer of each item."""
    return [(number, subject, answer(inputs)) for number, subject, answer in items]


def chapter(key: str, inputs: Inputs) -> Chapter:
    """The table of a checklist, its counts above."""
    title, items = CHECKLISTS[key]
    rows = [[number, subject, answer.status, answer.text] for number, subject, answer in answers(items, inputs)]
    numbers = "Numbers are those of the checklist, words are ours."
    stays = "What is asked of authors, clinics or raters and no run can show stays open."
    table = Table(f"Items of {title}", ["item", "subject", "status", "artifact, or what is lacking"], rows, labels=4)
    return Chapter(key, f"Checklist: {title}", [Paragraph(f"{tally(key, inputs)}. {numbers} {stays}"), table])


def tally(key: str, inputs: Inputs) -> str:
    """How many items have which status."""
    items = CHECKLISTS[key][1]
    counted = Counter(answer.status for _, _, answer in answers(items, inputs))
    return f"{', '.join(f'{counted[status]} {status}' for status in STATUSES)} of {len(items)} items and parts"


def counts(inputs: Inputs) -> list[tuple[str, str]]:
    """A fact a checklist, for the short text."""
    return [(title, tally(key, inputs)) for key, (title, _) in CHECKLISTS.items()]
