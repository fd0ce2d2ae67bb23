"""Everything that the report reads, read at once; the chapters take their numbers from here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.artifacts.paths import CLASSIFIER, METRICS, PLOTS
from skinlesion.artifacts.raw import RAW, read_provenance
from skinlesion.artifacts.splits import read_split_facts
from skinlesion.artifacts.tables import parse_csv
from skinlesion.audits.findings import outdated, read_extra
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import read_json
from skinlesion.base.versions import git_commit
from skinlesion.config.contents import Named, check_member_names
from skinlesion.config.params import PARAMS_FILE, load_params, read_params
from skinlesion.report.extras import EXTRAS, Extra

METRIC_FILES: tuple[str, ...] = (
    *("split", "evaluate", "threshold_sweep", "baselines", "selective", "subgroups", "failures", "gradcam", "neighbors"),
)
GROUPS = PLOTS / "subgroups" / "groups.csv"


@dataclass(frozen=True)
class Inputs:
    """What a run left behind.

    metrics : content of metrics/NAME.json, by name (`METRIC_FILES`). training : of metrics/train/MEMBER.json, by member.
    ensemble : models/classifier/ensemble.json. configs : config.json of each member.
    groups : the table of subgroups. extras : None for one that was not run.
    params : params.yaml, checked. params_text : as it stands. commit : of the code that writes the report, None without git.
    """

    metrics: dict[str, Named]
    training: dict[str, Named]
    ensemble: Named
    configs: dict[str, Named]
    provenance: Named
    fingerprint: str
    synthetic: bool
    groups: pd.DataFrame
    extras: dict[str, Extra | None]
    params: dict[str, Any]
    params_text: str
    commit: str | None


def read_inputs() -> Inputs:
    """Read what the stages left in the workspace.

    Raises
    ------
    PipelineError
        Something is missing or damaged; or the classifier and the metrics are not of one split.
    """
    load_params()
    metrics = {name: _read_named(METRICS / f"{name}.json") for name in METRIC_FILES}
    facts, ensemble = read_split_facts(), _read_named(CLASSIFIER / "ensemble.json")
    for place, content in {"metrics/split.json": metrics["split"], "the classifier": ensemble}.items():
        if content.get("fingerprint") != facts.fingerprint:
            raise PipelineError(f"{place} is not of the lists in data/splits: run `dvc repro`")
    names = check_member_names(ensemble, CLASSIFIER / "ensemble.json")
    extras = {name: read_extra(name) for name in EXTRAS}
    return Inputs(
        metrics=metrics,
        training={name: _read_named(METRICS / "train" / f"{name}.json") for name in names},
        ensemble=ensemble,
        configs={name: _read_named(CLASSIFIER / name / "config.json") for name in names},
        provenance=Named(read_provenance(), str(RAW / "provenance.json")),
        fingerprint=facts.fingerprint,
        synthetic=facts.synthetic,
        groups=_read_groups(GROUPS),
        extras={name: None if found is None else Extra(found, outdated(found)) for name, found in extras.items()},
        params=read_params(),
        params_text=PARAMS_FILE.read_text(encoding="utf-8"),
        commit=git_commit(),
    )


def _read_named(path: Path) -> Named:
    return Named(read_json(path), str(path))


def _read_groups(path: Path) -> pd.DataFrame:
    """The table of subgroups; its names as text."""
    try:
        text = dict.fromkeys(("attribute", "group", "metric"), "str")
        return parse_csv(path, name=str(path), dtype=text, na_values={name: [""] for name in ("value", "low", "high")})
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run `subgroups` first, or `dvc repro`") from None
