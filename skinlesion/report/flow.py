"""The flow of images, from the source to the predictions, as a drawing in the manner of STARD."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from skinlesion.report.blocks import Figure
from skinlesion.report.figures import inline_svg
from skinlesion.report.formats import count
from skinlesion.report.inputs import Inputs

WIDTH, BOX, HEIGHT, GAP, LINE = 760, 230, 82, 36, 17  # of the drawing, a box, a gap between rows, a line of text; pixels
COLUMNS = (130, 380, 630)  # centres of three boxes beside each other
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
    height = len(rows) * HEIGHT + (len(rows) - 1) * GAP + 8
    drawn = [
        box(centre, row, lines) for row, boxes in enumerate(rows) for centre, lines in zip(places(boxes), boxes, strict=True)
    ]
    arrows = [arrow(COLUMNS[1], COLUMNS[1], 0), *(arrow(COLUMNS[1], centre, 1) for centre in COLUMNS)]
    arrows += [arrow(centre, centre, 2) for centre in COLUMNS]
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#333"/></marker>'
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="13"><defs>{head}</defs><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        f"{''.join([*arrows, *drawn])}</svg>"
    )
    return Figure(f"{CAPTION} ({', '.join(FILES)})", inline_svg(svg, name="flow", label=describe(rows)))


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


def places(boxes: Sequence[object]) -> tuple[int, ...]:
    """Centres of the boxes of a row."""
    return COLUMNS if len(boxes) > 1 else (COLUMNS[1],)


def top(row: int) -> int:
    """Upper edge of a row."""
    return 4 + row * (HEIGHT + GAP)


def box(centre: int, row: int, lines: Sequence[str]) -> str:
    """A box with lines of text, the first of them bold."""
    first = top(row) + HEIGHT / 2 - LINE * (len(lines) - 1) / 2 + 5
    texts = [
        f'<text x="{centre}" y="{first + LINE * number:g}" text-anchor="middle" fill="#111"'
        f"{' font-weight=' + chr(34) + 'bold' + chr(34) if number == 0 else ''}>{escape(line)}</text>"
        for number, line in enumerate(lines)
    ]
    edge = f'<rect x="{centre - BOX // 2}" y="{top(row)}" width="{BOX}" height="{HEIGHT}" fill="#f4f6f8" stroke="#333"/>'
    return edge + "".join(texts)


def arrow(start: int, end: int, row: int) -> str:
    """A right-angled arrow from the lower edge of a row to the upper edge of the next one."""
    above, below = top(row) + HEIGHT, top(row + 1)
    middle = (above + below) // 2
    path = f"M{start} {above}V{middle}H{end}V{below}"
    return f'<path d="{path}" fill="none" stroke="#333" marker-end="url(#head)"/>'


def describe(rows: Sequence[Sequence[Sequence[str]]]) -> str:
    """The diagram in words, for those who cannot see it."""
    return "; then ".join(" | ".join(", ".join(lines) for lines in boxes) for boxes in rows)
