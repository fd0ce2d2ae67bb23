"""The choices at the side of the page."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app.opening import Opened, list_engines, list_models, open_predictor, stamp
from app.overlays import OPACITY
from app.words import name_point, rule_of_point
from skinlesion.artifacts.patients import SEXES, SITES, Patient
from skinlesion.artifacts.tables import AGE_LIMIT
from skinlesion.explanation.cam.methods import PERTURBATION_METHODS
from skinlesion.serving.operating_point import OperatingPoint
from skinlesion.serving.predictor import ENSEMBLE

ENGINE_NAMES = {"torch": "torch: as it was trained", "onnx": "ONNX Runtime", "onnx-int8": "ONNX Runtime, 8 bits"}
FIRST_METHOD = "GradCAM"
NOT_GIVEN = "not given"

# For everybody: a predictor is safe to call from several threads. Nothing of an image is in it.
open_once = st.cache_resource(max_entries=4, show_spinner="Loading the classifier ...")(open_predictor)


@dataclass(frozen=True)
class Choices:
    """What was chosen. opacity : of the map's colours over the image, 0 to 1."""

    opened: Opened
    point: OperatingPoint | None
    method: str | None
    opacity: float
    patient: Patient


def choose(root: Path = Path()) -> Choices:
    """Draw the controls.

    Raises
    ------
    PipelineError
        There is no classifier, or a file of it is damaged.
    """
    st.header("Settings", anchor=False)
    opened = _choose_predictor(root)
    point = _choose_point(opened)
    method, opacity = _choose_map(opened)
    return Choices(opened, point, method, opacity, _ask_patient(opened))


def _choose_predictor(root: Path) -> Opened:
    stamped = stamp(root)
    models, engines = list_models(root), list_engines(root)
    model = st.selectbox("Model", models, format_func=lambda name: "ensemble of all members" if name == ENSEMBLE else name)
    if len(models) == 1:
        st.caption("The ensemble has one member, so there is nothing to choose.")
    engine = st.selectbox("Engine", engines, format_func=ENGINE_NAMES.__getitem__)
    if len(engines) == 1:
        st.caption("`dvc repro extras/dvc.yaml:export` adds ONNX Runtime.")
    return open_once(root, model, engine, stamped)


def _choose_point(opened: Opened) -> OperatingPoint | None:
    points = opened.predictor.points
    if not points:
        st.selectbox("Operating point", ["none"], disabled=True)
        st.caption("Operating points were chosen for the ensemble and say nothing of one member alone.")
        return None
    names = list(points)
    name = st.selectbox(
        "Operating point", names, index=names.index(opened.predictor.default_point or names[0]), format_func=name_point
    )
    st.caption(rule_of_point(points[name]))
    return points[name]


def _choose_map(opened: Opened) -> tuple[str | None, float]:
    methods = opened.methods
    if not methods:
        st.caption("No method can draw heat maps of these networks.")
        return None, OPACITY
    method = st.selectbox(
        "Heat map",
        methods,
        index=methods.index(FIRST_METHOD) if FIRST_METHOD in methods else 0,
        format_func=lambda name: f"{name} (slow)" if name in PERTURBATION_METHODS else name,
    )
    opacity = st.slider("Opacity of the heat map over the image", 0, 100, round(100 * OPACITY), step=5, format="%d %%")
    return method, opacity / 100


def _ask_patient(opened: Opened) -> Patient:
    st.subheader("Patient", anchor=False)
    if not opened.predictor.needs_metadata:
        st.caption("This classifier sees the image alone: age, sex and site would change nothing, so they are not asked for.")
        return Patient()
    st.caption("This classifier uses them, for all images on the page. Leave out what is not known.")
    age = st.number_input("Age in years", min_value=0, max_value=int(AGE_LIMIT), value=None, step=1, placeholder=NOT_GIVEN)
    sex = st.selectbox("Sex", [NOT_GIVEN, *SEXES])
    site = st.selectbox("Site of the lesion", [NOT_GIVEN, *SITES])
    return Patient(age, None if sex == NOT_GIVEN else sex, None if site == NOT_GIVEN else site)
