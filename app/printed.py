"""The answers as one page to print or keep: it needs nothing else, and runs no script."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from app import words
from app.answers import Answer
from app.markup import bars, render
from app.overlays import data_uri, overlay
from skinlesion.artifacts.patients import Patient
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.serving.operating_point import OperatingPoint
from skinlesion.serving.predictor import Predictor

# Of an answer: the diagnosis that its map is for, the method, and the map, uint8 (H, W).
Shown = tuple[str, str, np.ndarray]


def printed_page(
    predictor: Predictor,
    answers: Sequence[tuple[Answer, Shown | None]],
    patient: Patient,
    point: OperatingPoint | None,
    *,
    opacity: float,
    now: datetime,
) -> str:
    """The page as HTML.

    answers : with the map that is shown of each, if any. opacity : of the maps' colours over the image, 0 to 1. now : its date.
    """
    card = predictor.card()
    facts = [
        ("Date", now.strftime("%Y-%m-%d %H:%M %Z").strip()),
        ("Operating point", f"{point.name}. {words.point_sentence(point)}" if point else "none applied"),
        *words.describe_card(card),
    ]
    if predictor.needs_metadata:
        facts.append(("Patient", describe_patient(patient)))
    return str(
        render(
            "printed.html",
            title="Answers of the skin lesion classifier",
            not_for_clinical_use=words.NOT_FOR_CLINICAL_USE,
            synthetic=words.SYNTHETIC if card["data"]["synthetic"] else "",
            facts=facts,
            cases=[_case(predictor, each, shown, opacity) for each, shown in answers],
        )
    )


def describe_patient(patient: Patient) -> str:
    """Age, sex and site in words."""
    age = "not given" if patient.age is None else f"{patient.age:g} years"
    return f"age {age}, sex {patient.sex or 'not given'}, site {patient.localization or 'not given'}"


def _case(predictor: Predictor, answered: Answer, shown: Shown | None, opacity: float) -> dict[str, object]:
    """What the template reads of one image."""
    case: dict[str, object] = {"name": answered.handed.name, "error": answered.error, "network_of_map": ""}
    seen, prediction = answered.seen, answered.prediction
    if seen is None or prediction is None:
        return case
    pictures = [{"uri": data_uri(seen.shown), "caption": "drawn image" if answered.handed.drawn else "image"}]
    if shown is not None:
        dx, method, heat = shown
        empty = "" if heat.any() else "; it is empty: nothing was found that speaks for it"
        pictures += [
            {"uri": data_uri(overlay(seen.shown, heat, opacity=1)), "caption": f"heat map ({method}) for {DIAGNOSES[dx]}{empty}"},
            {"uri": data_uri(overlay(seen.shown, heat, opacity=opacity)), "caption": "heat map over the image"},
        ]
        case["network_of_map"] = words.network_of_map(predictor.engine)
    return case | {
        "remarks": [remark for remark, _ in words.remarks(answered)],
        "flag": words.flag_sentence(prediction),
        "most_probable": words.most_probable(prediction),
        "pictures": pictures,
        "bars": bars(prediction, calibrated=predictor.calibrator is not None),
        "sets": words.set_sentences(prediction),
    }
