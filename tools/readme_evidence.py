"""Tables of README on what stands behind the headline of recorded runs: proven images, worst groups, abstaining, leak, maps."""

from collections.abc import Iterator, Mapping
from typing import Any

from skinlesion.report import explanations
from skinlesion.report.blocks import Table
from skinlesion.report.explanations import CHECKS, CONTROLS, MEASURES
from skinlesion.report.formats import bounded
from tools.records import Record, number

PREFERRED_COVERAGE = "0.8"  # of the shares answered, the one that is shown, or else the first


def evidence_tables(records: list[Record]) -> Iterator[Table]:
    """The tables of this module; without those that no run has figures for."""
    yield behind_table(records)
    if leaking := [record for record in records if "extras/leak" in record.metrics]:
        yield leak_table(leaking)
    for record in records:
        if faithful := record.metrics["gradcam"].get("faithfulness"):
            found = explanations.methods_table(faithful)
            yield Table(f"{record.link}: {found.caption[0].lower()}{found.caption[1:]}", found.header, found.rows)
            yield verdict_table(record.link, faithful)


def behind_table(records: list[Record]) -> Table:
    """Histologically proven images alone, the groups with the lowest figures, and what answering only where confident gives."""
    header = ["run", "images / lesions proven by histology", "accuracy of these", "macro AUC of these"]
    header += [f"{name}, lowest of the groups large enough" for name in ("melanoma sensitivity", "macro AUC")]
    header += ["answered, by the confidence of", "share answered", "accuracy of these", "melanomas given another diagnosis"]
    rows = [
        [record.link, *subgroup_cells(record.metrics.get("subgroups")), *selective_cells(record.metrics.get("selective"))]
        for record in records
    ]
    return Table("What stands behind the headline, on test", header, rows)


def subgroup_cells(found: Mapping[str, Any] | None) -> list[str]:
    """Figures of the proven images alone, and of the groups with the lowest ones; dashes where there are none."""
    proven = found["histology_only"] if found else None
    cells = ["-"] * 3
    if proven is not None:
        values = (number(proven[name], proven["intervals"][name]) for name in ("accuracy", "macro_auc"))
        cells = [f"{proven['images']:,} / {proven['lesions']:,}", *values]
    for name, unit in (("mel_sensitivity", "melanoma_lesions"), ("macro_auc", "lesions")):
        worst = found["worst"][name] if found else None
        of = f" ({worst['attribute']} {worst['group']}, {worst[unit]:,} {unit.replace('_', ' ')})" if worst else ""
        cells.append(number(worst["value"], worst) + of if worst else "-")
    return cells


def selective_cells(found: Mapping[str, Any] | None) -> list[str]:
    """What answering only where confident gives; dashes where it was not measured."""
    if found is None:
        return ["-"] * 4
    points = found["abstention"]
    asked = PREFERRED_COVERAGE if PREFERRED_COVERAGE in points else next(iter(points))
    test = points[asked]["test"]
    values = (number(test[name], test["intervals"].get(name)) for name in ("coverage", "accuracy", "melanomas_missed"))
    return [f"the surest {float(asked):.0%} of validation", *values]


def leak_table(records: list[Record]) -> Table:
    """What siblings of the test images in the training list add to the figures."""
    shown = [("all", "accuracy"), ("all", "macro_auc"), ("all", "mel_sensitivity")]
    shown += [("with_siblings", "accuracy"), ("without_siblings", "accuracy")]
    rows = []
    for record in records:
        found = record.metrics["extras/leak"]
        recipe, share = found["recipe"], found["siblings"]["image_level"]["share"]
        gains = ((found[group] or {}).get("metrics", {}).get(name) for group, name in shown)
        rows.append([record.link, f"{recipe['backbone']}, {recipe['epochs']} epochs", str(len(recipe["seeds"])), f"{share:.0%}"])
        rows[-1] += [bounded(values, "inflation", signed=True) if values else "-" for values in gains]
    header = ["run", "network", "trainings of each kind", "test images with a sibling"]
    header += ["accuracy", "macro AUC", "melanoma sensitivity", "accuracy of those with a sibling", "accuracy of those without"]
    caption = "A leak: what an image-level split adds on the same test images (those without a sibling are a control)"
    return Table(caption, header, rows)


def verdict_table(link: str, faithful: Mapping[str, Any]) -> Table:
    """Each method's verdicts against the controls, and its sanity check."""
    methods = faithful["methods"]
    measures = next(iter(methods.values()))["measures"]
    pairs = [(measure, control) for measure in MEASURES for control in CONTROLS if control in measures[measure]]
    rows = [
        [name, *(explanations.judge(each["measures"], *pair) for pair in pairs), CHECKS[each["sanity"]["passed"]]]
        for name, each in methods.items()
    ]
    header = ["method", *(f"{MEASURES[measure]} against {CONTROLS[control]}" for measure, control in pairs), "sanity check"]
    return Table(f"{link}: the maps against controls that know nothing of the image", header, rows)
