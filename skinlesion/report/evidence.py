"""What a run can show for the items of a reporting checklist: each answer is decided by what the run left behind.

An answer is `satisfied` (with the artifact), `partly` (with what is lacking), `open` (the run shows nothing) or `not applicable`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skinlesion.artifacts.paths import PLOTS
from skinlesion.artifacts.splits import SPLITS
from skinlesion.report.extras import command, file_of
from skinlesion.report.inputs import GROUPS, Inputs

SATISFIED, PARTLY, OPEN, NOT_APPLICABLE = STATUSES = ("satisfied", "partly", "open", "not applicable")


@dataclass(frozen=True)
class Answer:
    """A status, and where to look or what is lacking."""

    status: str
    text: str


Evidence = Callable[[Inputs], Answer]


def stands_in(text: str) -> Evidence:
    """What every run has, because the report is not written without it."""
    return lambda inputs: Answer(SATISFIED, text)


def lacks(text: str, *, status: str = OPEN) -> Evidence:
    """What no run of this pipeline has, or has in part (`status`)."""
    return lambda inputs: Answer(status, text)


def of_people(text: str, *, status: str = OPEN) -> Evidence:
    """What people or clinics are asked for; it does not apply to drawn images."""
    return lambda inputs: (
        Answer(NOT_APPLICABLE, "synthetic images: nobody took part") if inputs.synthetic else Answer(status, text)
    )


def partitions_described(inputs: Inputs) -> Answer:
    """Age, sex and site of each split."""
    tables = [PLOTS / "split" / f"{name}.csv" for name in ("age", "sex", "localization")]
    missing = [table.as_posix() for table in tables if not table.is_file()]
    if missing:
        return Answer(OPEN, f"missing: {', '.join(f'`{name}`' for name in missing)}")
    return Answer(SATISFIED, "`plots/split/`, `metrics/split.json` (diagnoses, missing values)")


def subgroups(inputs: Inputs) -> Answer:
    """Groups of people that are large enough to say something about melanoma."""
    told = f"`metrics/subgroups.json`, `{GROUPS.as_posix()}`"
    if inputs.metrics["subgroups"]["worst"]["mel_sensitivity"] is None:
        return Answer(PARTLY, f"{told}; every group is too small to judge melanoma sensitivity")
    return Answer(SATISFIED, told)


def reference_standard(inputs: Inputs) -> Answer:
    """How diagnoses were made, as far as the source says."""
    ways = inputs.provenance["counts"].get("dx_type")
    if not ways:
        return Answer(OPEN, "the source does not say how diagnoses were made")
    return Answer(
        PARTLY, "`data/raw/provenance.json` counts the ways of diagnosis; criteria are those of the source's publication"
    )


def proven_test(inputs: Inputs) -> Answer:
    """Whether the proven part of test is measured on its own."""
    if inputs.metrics["subgroups"]["histology_only"] is None:
        return Answer(OPEN, "no test image is proven by histology")
    return Answer(PARTLY, "labels of the source; `metrics/subgroups.json` measures the proven ones alone")


def disjoint(inputs: Inputs) -> Answer:
    """Lesions are kept apart; the data set names no people."""
    told = "`metrics/split.json`: no lesion in two splits; the data set does not name patients"
    audit = inputs.extras["near_duplicates"]
    if audit is None:
        return Answer(PARTLY, f"{told}; near-duplicates were not looked for (`{command('near_duplicates')}`)")
    return Answer(PARTLY, f"{told}; near-duplicates: `{file_of('near_duplicates')}`")


def initialization(inputs: Inputs) -> Answer:
    """Initial weights with their digest."""
    unnamed = [name for name, c in inputs.configs.items() if c["params"]["weights"] != "none" and not c["weights_sha256"]]
    if unnamed:
        return Answer(PARTLY, f"no digest of the initial weights of {', '.join(unnamed)}")
    return Answer(SATISFIED, "`models/classifier/*/config.json`: `weights`, `weights_sha256`, `seed`")


def ensembling(inputs: Inputs) -> Answer:
    """How several networks vote, if there are several."""
    if len(inputs.configs) < 2:
        return Answer(NOT_APPLICABLE, "one network")
    return Answer(SATISFIED, "`models/classifier/ensemble.json`; each alone in `metrics/evaluate.json`")


def imbalance(inputs: Inputs) -> Answer:
    """Weights, sampling, loss or drawn images against the rarity of classes."""
    used = set()
    for config in inputs.configs.values():
        params = config["params"]
        plain = {"class_weights": "none", "sampler": "shuffle", "loss": "cross_entropy", "class_multipliers": {}}
        used |= {f"`{key}: {params[key]}`" for key, value in plain.items() if params.get(key, value) != value}
    if any(trained["images"]["synthetic"] for trained in inputs.training.values()):
        used.add("drawn images of rare classes")
    if not used:
        return Answer(NOT_APPLICABLE, "no method against class imbalance was used")
    return Answer(SATISFIED, f"{', '.join(sorted(used))}; recalibrated on validation (`metrics/evaluate.json`)")


def extra(name: str, *, lacking: str = "") -> Evidence:
    """What an extra can show, if it was run on this classifier."""

    def answer(inputs: Inputs) -> Answer:
        found = inputs.extras[name]
        if found is None:
            return Answer(OPEN, f"not run: `{command(name)}`")
        if found.outdated:
            return Answer(PARTLY, f"`{file_of(name)}` is outdated: `{command(name)}`")
        if name == "external" and found.content.get("data", {}).get("synthetic"):
            return Answer(PARTLY, f"`{file_of(name)}`, of synthetic images")
        return Answer(PARTLY if lacking else SATISFIED, f"`{file_of(name)}`" + (f"; {lacking}" if lacking else ""))

    return answer


def differences(inputs: Inputs) -> Answer:
    """Development and evaluation data differ only where there is an external set."""
    if inputs.extras["external"] is None:
        return Answer(NOT_APPLICABLE, f"test is dealt from the same source (`{command('external')}` measures another one)")
    return Answer(PARTLY, f"`{file_of('external')}`; settings and eligibility are not compared")


def explained(inputs: Inputs) -> Answer:
    """Maps, and whether they were held against lesion masks."""
    if inputs.metrics["gradcam"]["energy_ratio"] is None:
        return Answer(PARTLY, "`metrics/gradcam.json`; no lesion masks to validate the maps with")
    return Answer(SATISFIED, "`metrics/gradcam.json`, `plots/gradcam/`: maps held against lesion masks")


def code(inputs: Inputs) -> Answer:
    """A commit from which the run can be made again."""
    commits = [inputs.commit, *(config["git_commit"] for config in inputs.configs.values())]
    if None in commits:
        return Answer(OPEN, "no git commit of the code is known")
    if any(commit.endswith("-dirty") for commit in commits if commit):
        return Answer(PARTLY, "commits are named above, and tracked files were edited after them")
    return Answer(SATISFIED, "the repository at the commit named above; `dvc.yaml`, `params.yaml`, `dvc.lock`")


def availability(inputs: Inputs) -> Answer:
    """Code, data and weights."""
    reached = code(inputs)
    where = f"data: {inputs.provenance['licence']}; weights in `models/classifier/`, not published by a run"
    return Answer(PARTLY, f"{where}; code: {reached.text}")


def uncertainty(inputs: Inputs) -> Answer:
    """Intervals by bootstrap over lesions."""
    if not inputs.metrics["evaluate"].get("bootstrap"):
        return Answer(OPEN, "`metrics/evaluate.json` has no intervals")
    return Answer(SATISFIED, "`metrics/evaluate.json`: `bootstrap`, `intervals`, over lesions")


def splits(inputs: Inputs) -> Answer:
    """The lists themselves."""
    missing = [name for name in inputs.metrics["split"]["images"] if not (SPLITS / f"{name}.csv").is_file()]
    if missing or not Path("params.yaml").is_file():
        return Answer(PARTLY, f"`metrics/split.json`; missing lists: {', '.join(missing)}")
    return Answer(SATISFIED, "`data/splits/`, `metrics/split.json`, `params.yaml` (`split`)")
