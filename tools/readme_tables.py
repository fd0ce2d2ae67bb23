"""Keep README's results generated: `python -m tools.readme_tables [--check]`.

Reads   results/*/metrics/*.json and results/*/provenance.json
Writes  README.md, between the markers `<!-- results:begin -->` and `<!-- results:end -->`; with --check nothing: it ends
        with 1 if README.md is not what would be written
"""

import argparse
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_file
from skinlesion.report.blocks import Table
from skinlesion.report.formats import describe_rule
from tools.readme_evidence import evidence_tables
from tools.records import HEADLINE, RESULTS, Record, list_records, number, read_record

README = Path("README.md")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"

logger = logging.getLogger(__name__)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table."""
    names = list(header)
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]


def describe_images(record: Record) -> str:
    """Real or synthetic, source, size of the originals and of what the network sees."""
    kind = "**synthetic**" if record.provenance["synthetic"] else "real"
    originals, classifier = record.provenance["originals"], record.provenance["classifier"]
    size = f"{originals['width']} x {originals['height']} px"
    seen = f"{classifier['size']} x {classifier['size']} ({classifier['fit']})"
    return f"{kind}, source `{record.provenance['data']['source']}`, {size}, network sees {seen}"


def describe_network(record: Record) -> str:
    """The networks, each once, with the weights that training started from; what was averaged."""
    classifier = record.provenance["classifier"]
    members = classifier["members"]
    networks = " and ".join(dict.fromkeys(describe_member(member) for member in members))
    several = f"; mean of {len(members)} members" if len(members) > 1 else ""
    test_time = record.metrics["evaluate"].get("test_time", "none")
    return networks + several + (f"; test-time views: {test_time}" if test_time != "none" else "")


def describe_member(member: dict[str, Any]) -> str:
    """A network and the weights that its training started from."""
    weights, digest = member["weights"], member["weights_sha256"]
    network = member["backbone"] + (" with metadata" if member.get("needs_metadata") else "")
    if weights == "none":
        return f"{network} from random weights"
    return f"{network} from `{PurePath(weights).name}`" + (f" (sha256 {digest[:8]})" if digest else "")


def rows_below(measured: dict[str, Any]) -> Iterator[list[str]]:
    """What stands below a run's headline: one prediction a lesion and the members alone, where there are such; the baseline."""
    test = measured["test"]
    if lesions := test.get("per_lesion"):  # older runs lack it
        values = [number(lesions[name], lesions["intervals"][name]) for name in HEADLINE]
        yield ["", "one prediction a lesion, the mean of its images", "", "", *values]
    members, spread = len(measured.get("members", {})), measured.get("spread", {}).get("test", {})
    if members > 1:
        told = {name: "-" if None in each.values() else f"{each['mean']:.3f} ± {each['sd']:.3f}" for name, each in spread.items()}
        values = [told.get(name, "") for name in HEADLINE]
        yield ["", f"each of the {members} members alone (mean ± standard deviation)", "", "", *values]
    baseline = test["majority_baseline"]
    yield ["", f"majority class ({baseline['class']})", "", "", *(number(baseline.get(name)) for name in HEADLINE)]


def headline_table(records: list[Record]) -> Table:
    """Test metrics a run, with those of its members, where there are several, and of the majority class below."""
    rows = []
    for record in records:
        test = record.metrics["evaluate"]["test"]
        sizes = f"{test['images']:,} / {test['lesions']:,}"
        values = [number(test[name], test["intervals"].get(name)) for name in HEADLINE]
        rows.append([record.link_with_report, describe_images(record), describe_network(record), sizes, *values])
        rows += rows_below(record.metrics["evaluate"])
    caption = f"Headline metrics, {describe_level(records, 'evaluate')} intervals"
    return Table(caption, ["run", "images", "network", "test images / lesions", *HEADLINE.values()], rows)


def operating_point_table(records: list[Record]) -> Table:
    """Operating points a run: the sensitivity that was asked for on validation, and what came of it on test."""
    rows = []
    for record in records:
        sweep = record.metrics["threshold_sweep"]
        for name, point in sweep["points"].items():
            test, intervals = point["test"], point["intervals"]
            achieved = [
                number(test[rate], intervals.get(rate)) for rate in ("sensitivity", "specificity", "precision", "flagged")
            ]
            rows.append([record.link, f"{sweep['target']}: {name}", f"{point['threshold']:.4f}", describe_rule(point)])
            rows[-1] += [number(point["val"]["sensitivity"]), *achieved]
    header = ["run", "target: operating point", "threshold", "asked on validation", "sensitivity, validation"]
    header += ["sensitivity, test", "specificity, test", "precision, test", "flagged, test"]
    level = describe_level(records, "threshold_sweep")
    return Table(f"Operating points: thresholds chosen on validation, then audited on test, {level} intervals", header, rows)


def describe_maps(measured: dict[str, Any]) -> str:
    """Method and layers, each once, of what gradcam.json says."""
    layers = [each["layer"] for each in measured["layers"].values()]
    return f"{measured['method']}, {', '.join(f'`{layer}`' for layer in dict.fromkeys(layers))}"


def gradcam_table(records: list[Record]) -> Table:
    """Energy ratio of the maps a run, where the source has lesion masks."""
    rows = []
    for record in records:
        measured, ratio = record.metrics["gradcam"], record.metrics["gradcam"]["energy_ratio"]
        mean, median = (number(ratio["mean"], ratio), number(ratio["median"])) if ratio else ("-", "-")
        rows.append([record.link, describe_maps(measured), f"{measured['images_with_mask']:,}"])
        rows[-1] += [mean, median]
    caption = "Grad-CAM: share of a map's energy inside the lesion over the lesion's share of the area (1 is chance)"
    level = describe_level(records, "gradcam")
    header = ["run", "maps of", "test images with a lesion mask", "mean energy ratio", "median"]
    return Table(f"{caption}, {level} intervals" if level else caption, header, rows)


def describe_level(records: Iterable[Record], metrics: str) -> str:
    """Confidence level of the intervals in `metrics` (`evaluate` and so on), each with its runs where they differ."""
    runs: dict[str, list[str]] = {}
    for record in records:
        if drawn := record.metrics[metrics]["bootstrap"]:
            runs.setdefault(f"{100 * drawn['confidence']:g}%", []).append(record.name)
    if len(runs) == 1:
        return next(iter(runs))
    return " or ".join(f"{level} ({', '.join(names)})" for level, names in sorted(runs.items()))


def results_block(records: list[Record]) -> str:
    """What stands between the markers."""
    if not records:
        return "No run is recorded yet: `make record NAME=...` records the one in the workspace."
    ordered = sorted(records, key=lambda record: (record.provenance["synthetic"], record.name))
    tables = [headline_table(ordered), operating_point_table(ordered), gradcam_table(ordered), *evidence_tables(ordered)]
    lines = [
        "Test split; in brackets intervals by bootstrap over lesions. Written by `python -m tools.readme_tables` from the",
        "metrics in each run's folder, which also holds its parameters, provenance and prediction tables.",
        "",
        *(line for each in tables for line in (f"{each.caption}.", "", *table(each.header, each.rows), "")),
    ]
    if any(record.provenance["synthetic"] for record in ordered):
        lines += ["Runs marked **synthetic** are of drawn images: their figures say nothing about real skin."]
    return "\n".join(lines).rstrip()


def replace_block(text: str, block: str, markers: tuple[str, str] = (BEGIN, END)) -> str:
    """README's text with `block` between the markers.

    Raises
    ------
    PipelineError
        The markers are not there exactly once, in order.
    """
    begin, end = markers
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise PipelineError(f"{README} must have one line '{begin}' and, below it, one line '{end}': the tables go between them")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}"


def updated_readme(readme: Path = README, results: Path = RESULTS) -> tuple[str, str]:
    """README's text as it is and as it should be."""
    try:
        text = readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PipelineError(f"{readme} not found: run from the project's root") from None
    return text, replace_block(text, results_block([read_record(folder) for folder in list_records(results)]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.readme_tables", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if README.md is out of date")
    arguments = parser.parse_args()
    text, updated = updated_readme()
    if text == updated:
        logger.info("%s is up to date", README)
    elif arguments.check:
        raise PipelineError(f"{README} does not say what {RESULTS}/ says: run `python -m tools.readme_tables`")
    else:
        with atomic_file(README) as partial:
            partial.write_text(updated, encoding="utf-8")
        logger.info("%s written", README)


if __name__ == "__main__":
    run_stage(main)
