"""Model card and datasheet: what the classifier is for, what it learnt from and how, its limits, how to get it again."""

from pathlib import PurePath
from typing import Any

from skinlesion.diagnoses import DIAGNOSES
from skinlesion.report.blocks import Block, Chapter, Details, Facts, Note, Paragraph, Points, References, Table
from skinlesion.report.figures import Plots
from skinlesion.report.flow import draw_flow
from skinlesion.report.formats import count, decimal, percent
from skinlesion.report.inputs import Inputs

NOT_CLINICAL = "Not for clinical use. Research software without approval as a medical device, measured on one data set."
SYNTHETIC = "Synthetic images: the figures show that the pipeline works, and say nothing about skin."

# Of the recipe, what a reader asks for first; the whole of it is in params.yaml.
RECIPE = (
    "backbone", "weights", "head", "metadata", "epochs", "batch_size", "lr", "optimizer", "weight_decay", "schedule", "loss",
    "class_weights", "label_smoothing", "sampler", "average", "select_by", "patience",
)  # fmt: skip

PUBLICATIONS = (
    (
        "Tschandl, Rosendahl, Kittler: The HAM10000 dataset. Scientific Data 5, 180161 (2018)",
        "https://doi.org/10.1038/sdata.2018.161",
    ),
    ("Mitchell et al.: Model cards for model reporting. FAT* (2019)", "https://doi.org/10.1145/3287560.3287596"),
    ("Gebru et al.: Datasheets for datasets. Communications of the ACM 64 (2021)", "https://doi.org/10.1145/3458723"),
    (
        "Tejani et al.: Checklist for artificial intelligence in medical imaging (CLAIM): 2024 update. Radiology: AI 6 (2024)",
        "https://doi.org/10.1148/ryai.240300",
    ),
    ("Collins et al.: TRIPOD+AI statement. BMJ 385, e078378 (2024)", "https://doi.org/10.1136/bmj-2023-078378"),
)


def use(inputs: Inputs) -> Chapter:
    """What it is, what it is for and what not."""
    seen = inputs.ensemble
    facts = [
        ("diagnoses", ", ".join(f"{meaning} (`{dx}`)" for dx, meaning in DIAGNOSES.items())),
        ("image", f"RGB, fitted into {seen['size']} x {seen['size']} pixels ({seen['fit']})"),
        ("colour constancy", seen["color_constancy"]),
        ("metadata", "age, sex and site" if seen["needs_metadata"] else "none"),
    ]
    return Chapter("use", "Intended use", [Note(NOT_CLINICAL), Paragraph(CLASSIFIER), Facts(facts), Points(USES)])


CLASSIFIER = (
    "A classifier of single dermatoscopic images of pigmented skin lesions. It gives each diagnosis that it knows a calibrated "
    "probability."
)
USES = (
    "Meant for: research on methods, teaching, and as a reference whose figures can be computed again.",
    "Not meant for: diagnosis, triage, screening, self-examination, or any decision on treatment.",
    "Users: people who build or study such classifiers. Nobody with a lesion is helped by its output.",
    "It always answers with one of its diagnoses: it was never shown any other, nor images that do not show a lesion.",
)


def data(inputs: Inputs, plots: Plots) -> Chapter:
    """Datasheet facts, the flow of images and the split."""
    source, split = inputs.provenance, inputs.metrics["split"]
    counts, missing = source["counts"], split["missing"]
    unknown = {name: sum(part[name] for part in missing.values()) for name in missing["train"]}  # over the splits
    facts = [
        ("source", f"`{source['source']}`, {'synthetic' if source['synthetic'] else 'real'} images; {source.get('origin', '')}"),
        ("kind of study", "none: drawn by a program" if source["synthetic"] else "retrospective, of a published collection"),
        ("licence", source["licence"]),
        ("citation", source.get("citation", "none given")),
        ("images and lesions", f"{count(counts.get('images'))} images of {count(counts.get('lesions'))} lesions"),
        ("lesion masks", count(counts.get("masks"))),
        ("how diagnoses were made (images)", ", ".join(f"{name} {count(n)}" for name, n in counts.get("dx_type", {}).items())),
        ("missing values (images)", ", ".join(f"{name} {count(images)}" for name, images in unknown.items())),
        ("largest deviation of a class's share", f"{decimal(split['largest_deviation_points'], digits=2)} percentage points"),
        ("overlap of the splits", f"{count(split['overlap']['images'])} images, {count(split['overlap']['lesions'])} lesions"),
    ]
    blocks: list[Block] = [Facts(facts), draw_flow(inputs), classes_table(split), plots.draw("split_classes")]
    if not source["synthetic"]:
        blocks.append(Points(SITES))
    return Chapter("data", "Data", [*blocks, Paragraph(CONFOUNDING)])


# Of HAM10000, from its publication (see the references).
SITES = (
    "Collected at two sites: the Department of Dermatology of the Medical University of Vienna, Austria, and a practice for skin "
    "cancer in Queensland, Australia; over years and with several dermatoscopes, partly from diapositives.",
    "The people are those who came to these two places, mostly of light skin; Fitzpatrick types are not recorded.",
)
CONFOUNDING = (
    "How a diagnosis was made goes with the diagnosis: melanomas are proven by histology, and lesions of `follow_up` are nevi. "
    "So `dx_type` is never an input, and a classifier can look good by telling how a lesion was looked after: the result among "
    "histologically proven images alone stands beside the headline."
)


def classes_table(split: dict[str, Any]) -> Table:
    """Images of each diagnosis in each split."""
    counted, shares = split["class_counts"], split["class_shares"]
    rows = [
        [f"{dx}, {meaning}", *(count(counted[part][dx]) for part in ("train", "val", "test")), percent(shares["whole"][dx])]
        for dx, meaning in DIAGNOSES.items()
    ]
    rows.append(["all", *(count(split["images"][part]) for part in ("train", "val", "test")), ""])
    return Table("Images of each diagnosis by split", ["diagnosis", "training", "validation", "test", "share of all"], rows)


def training(inputs: Inputs) -> Chapter:
    """The networks and how they were trained."""
    header = ["network", "backbone", "initial weights", "seed", "parameters", "epochs", "best epoch"]
    header += ["macro AUC, val", "macro F1, val"]
    kept = "Networks, the epoch kept by the metric on validation, and that metric's neighbours"
    members = Table(kept, header, [member_row(inputs, name) for name in inputs.configs], labels=3)
    keys = [key for key in RECIPE if any(key in config["params"] for config in inputs.configs.values())]
    recipe = Table(
        "Recipe, the values that a reader asks for first (all are at the end)",
        ["param", *inputs.configs],
        [[f"`{key}`", *(str(config["params"].get(key)) for config in inputs.configs.values())] for key in keys],
    )
    vote = Facts(
        [
            ("vote", inputs.ensemble["vote"]),
            ("test-time views", inputs.metrics["evaluate"]["test_time"]),
            ("calibration", f"{inputs.metrics['evaluate']['calibration']}, fitted on validation"),
        ]
    )
    return Chapter("training", "Training", [members, vote, recipe])


def member_row(inputs: Inputs, name: str) -> list[str]:
    """A network: what it is, how long it trained, how it did on validation."""
    config, trained = inputs.configs[name], inputs.training[name]
    weights = PurePath(str(config["params"]["weights"])).name
    if digest := config["weights_sha256"]:
        weights += f" ({digest[:8]})"
    done = [count(trained[key]) for key in ("parameters", "epochs", "best_epoch")]
    reached = [decimal(trained["val"][metric]) for metric in ("macro_auc", "macro_f1")]
    return [name, config["backbone"], weights, str(config["seed"]), *done, *reached]


def limits(inputs: Inputs) -> Chapter:
    """What the figures do not say."""
    points = [
        "One data set, and a test set dealt from it: hospitals, cameras and people are the same in training and test.",
        "Lesions are kept whole, people are not: the data set names lesions and no patients, so one person can be in two splits.",
        "Skin type is not recorded; how the classifier does on dark skin is unknown, and rare groups are too few to tell.",
        "Diagnoses without histology rest on follow-up, consensus or confocal microscopy; errors in them are held against it.",
        "Shares of diagnoses are those of a collection, not of a practice: precision and predictive values move with them.",
        "Intervals say what another sample of lesions would change, not what another training or another hospital would.",
    ]
    drawn = "The images are drawn by a program: nothing here is about skin, the list below is about the real data set."
    return Chapter("limits", "Limits", [Points([drawn, *points] if inputs.synthetic else points)])


def reproducibility(inputs: Inputs) -> Chapter:
    """Commits, fingerprints, versions and params."""
    first = next(iter(inputs.configs.values()))
    commits = dict.fromkeys(config["git_commit"] or "unknown" for config in inputs.configs.values())
    digests = [(file["name"], file.get("md5") or file.get("md5_of_sorted_md5s")) for file in inputs.provenance.get("files", [])]
    facts = [
        ("code of this report", f"`{inputs.commit or 'unknown'}`"),
        ("code that trained", ", ".join(f"`{commit}`" for commit in commits)),
        ("fingerprint of the split's lists (sha256)", f"`{inputs.fingerprint}`"),
        ("prepared images (sha256)", f"`{inputs.ensemble.get('images_sha256') or 'unknown'}`"),
        ("files of the source", "; ".join(f"{name} `{md5 or 'no digest'}`" for name, md5 in digests) or "none"),
        *((f"version: {name}", number) for name, number in first["versions"].items()),
    ]
    if "-dirty" in f"{inputs.commit}{''.join(commits)}":
        facts.insert(2, ("-dirty", "tracked files were edited after that commit"))
    again = Paragraph("`dvc repro` computes all of it again from the commit; `dvc.lock` holds the digest of every file.")
    blocks: list[Block] = [Facts(facts), again, Details("All parameters (`params.yaml`)", inputs.params_text)]
    return Chapter("reproducibility", "Reproducibility", blocks)


def references() -> Chapter:
    """What the report leans on."""
    return Chapter("references", "References", [References(PUBLICATIONS)])
