"""The flow of images, from the source to the predictions, as a drawing in the manner of STARD (flow.svg)."""

from skinlesion.report.blocks import Figure
from skinlesion.report.figures import inline_svg
from skinlesion.report.formats import count
from skinlesion.report.html import environment
from skinlesion.report.inputs import Inputs

CAPTION = "Images and lesions from the source to the predictions"


def draw_flow(inputs: Inputs) -> Figure:
    """The diagram; every number is from metrics/{split,evaluate}.json, metrics/train/ or data/raw/provenance.json."""
    split, evaluated, counts = inputs.metrics["split"], inputs.metrics["evaluate"], inputs.provenance["counts"]
    whole = {kind: sum(split[kind].values()) for kind in ("images", "lesions")}
    source = ["Source: " + inputs.provenance["source"], images(counts.get("images"), counts.get("lesions")), "none excluded"]
    if counts.get("images") != whole["images"]:
        source[2] = f"{count(whole['images'])} of them split"
    merged = f"{count(split['links']['merges'])} lesions merged by {count(split['links']['pairs'])} links"
    rows = [
        [source],
        [["Dealt by whole lesions", merged, images(whole["images"], whole["lesions"])]],
        [[title, images(split["images"][name], split["lesions"][name])] for name, title in SPLITS.items()],
        [
            ["Learnt from", *training_lines(inputs)],
            ["Predicted: validation", images(evaluated["val"]["images"], evaluated["val"]["lesions"]), "calibration, thresholds"],
            ["Predicted: test", images(evaluated["test"]["images"], evaluated["test"]["lesions"]), "audited once"],
        ],
    ]
    svg = environment().get_template("flow.svg").render(rows=rows)
    # The diagram in words, for those who cannot see it.
    label = "; then ".join(" | ".join(", ".join(lines) for lines in boxes) for boxes in rows)
    return Figure(f"{CAPTION} ({', '.join(FILES)})", inline_svg(svg, name="flow", label=label))


SPLITS = {"train": "Training", "val": "Validation", "test": "Test"}
FILES = ("`data/raw/provenance.json`", "`metrics/split.json`", "`metrics/evaluate.json`", "`metrics/train/`")


def images(number: int | None, lesions: int | None) -> str:
    """Images and lesions in words."""
    return f"{count(number)} images of {count(lesions)} lesions"


def training_lines(inputs: Inputs) -> list[str]:
    """What the members learnt from; each of them from the same images."""
    first = next(iter(inputs.training.values()))["images"]
    drawn = f"+ {count(first['synthetic'])} drawn by a VAE" if first["synthetic"] else "none drawn by a program"
    members = len(inputs.training)
    return [f"{count(first['train'])} images", drawn, f"by {members} network{'s' if members > 1 else ''}"]
