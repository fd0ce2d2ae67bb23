"""Parts of a page as HTML. Whatever stands in them is escaped: a file's name can be anything."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from app.answers import Answer
from app.overlays import LEGEND
from app.words import NOT_FOR_CLINICAL_USE, in_percent, network_of_map
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.serving.engines import Engine
from skinlesion.serving.operating_point import OperatingPoint
from skinlesion.serving.prediction import Prediction

TEMPLATES = Path(__file__).parent / "templates"
STYLES = (TEMPLATES / "page.css", TEMPLATES / "bars.css")


def render(template: str, **content: object) -> Markup:
    """A template of this package, filled in."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return Markup(environment.get_template(template).render(**content))


def banner() -> str:
    """The line that stays in view."""
    return f'<div class="not-clinical" role="note">{escape(NOT_FOR_CLINICAL_USE)}</div>'


def legend(engine: Engine) -> str:
    """What the map's colours mean, and of which network it is where the engine that predicts has another."""
    gradient = f'<span style="background: linear-gradient(to right, {LEGEND})"></span>'
    note = network_of_map(engine)
    below = f'<div class="legend">{note}</div>' if note else ""
    return f'<div class="legend">no evidence {gradient} most evidence in this image</div>{below}'


def bars(prediction: Prediction, *, calibrated: bool) -> Markup:
    """The seven probabilities, in the order of `DIAGNOSES`, as a table with a bar a row."""
    first = prediction.top(1)[0][0]
    point = prediction.point
    target = point.classes if point else ()
    threshold = point.threshold if point and len(target) == 1 else 0.0  # of the target's own bar
    rows = [
        {
            "name": DIAGNOSES[dx],
            "percent": in_percent(share),
            "width": f"{100 * share:.2f}",
            "first": dx == first,
            "target": dx in target,
        }
        for dx, share in prediction.probabilities.items()
    ]
    return render(
        "bars.html",
        bars=rows,
        calibrated=calibrated,
        rule=f"flagged from {in_percent(threshold)}" if threshold else "counts for the flag",
        tick=f"{100 * threshold:.2f}" if threshold else "",
    )


def overview(answers: Sequence[Answer], point: OperatingPoint | None) -> Markup:
    """One row an image."""
    rows = []
    for each in answers:
        row: dict[str, object] = {"name": each.handed.name, "error": each.error}
        if each.prediction is not None:
            dx, share = each.prediction.top(1)[0]
            row |= {
                "most_probable": f"{DIAGNOSES[dx]}, {in_percent(share)}",
                "flagged": "yes" if each.prediction.flagged else "no",
            }
        rows.append(row)
    return render("overview.html", rows=rows, point=point)
