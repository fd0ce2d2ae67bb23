"""The demo: `make app`. Images in; probabilities, flags and heat maps out. Not for clinical use."""

import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import streamlit as st
from starlette.formparsers import MultiPartParser

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `streamlit run app/demo.py` has app/ alone

from app import markup, words
from app.answers import MOST, Answer, Handed, Memory, answer, has_map, make_map
from app.csv_table import csv_table
from app.examples import draw_example, name_example
from app.overlays import overlay
from app.printed import Shown, printed_page
from app.sidebar import Choices, choose
from skinlesion.base.errors import PipelineError
from skinlesion.diagnoses import CLASSES, DIAGNOSES
from skinlesion.explanation.cam.methods import PERTURBATION_METHODS
from skinlesion.serving.uploads import MAX_BYTES

logger = logging.getLogger(__name__)

# What comes in stays in memory: above a megabyte it would pass through a temporary file.
MultiPartParser.spool_max_size = 2 * MAX_BYTES


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title=words.TITLE, layout="wide")
    for style in markup.STYLES:
        st.html(style)
    st.html(markup.banner())
    st.title(words.TITLE, anchor=False)
    try:
        with st.sidebar:
            choices = choose()
        show_answers(choices)
    except PipelineError as error:
        logger.warning("%s", error, exc_info=error)
        st.error(str(error))
    with st.expander("What is this, and what do the numbers mean?"):
        st.markdown(words.ABOUT)


def show_answers(choices: Choices) -> None:
    """Ask for images and answer them."""
    card = choices.opened.predictor.card()
    if card["data"]["synthetic"]:
        st.warning(f"**{words.SYNTHETIC}**")
    handed = ask_for_images()
    memory = st.session_state.setdefault("memory", Memory())
    memory.forget_others(choices.opened, handed)
    with st.spinner("Looking at the images ..."):
        answers = [answer(memory, choices.opened, each, choices.patient, choices.point) for each in handed]
    if choices.point is not None:
        st.markdown(f"**Operating point {words.escape_markdown(choices.point.name)}.** {words.point_sentence(choices.point)}")
    if len(answers) > 1:
        st.html(markup.overview(answers, choices.point))
    shown = [(each, show_one(memory, choices, each, place)) for place, each in enumerate(answers)]
    if answers:
        offer_downloads(choices, shown)
    with st.expander("How good is this classifier?"):
        show_test(card)
    with st.expander("Which classifier is this?"):
        rows = words.describe_card(card)
        st.html(markup.render("facts.html", caption="The classifier", heads=("What", "Here"), rows=rows))


def ask_for_images() -> list[Handed]:
    """The images on the page: uploaded ones, then drawn examples."""
    uploaded = st.file_uploader(
        f"Images of skin lesions: JPEG or PNG, {MAX_BYTES // 1_000_000} MB at most, {MOST} at a time",
        accept_multiple_files=True,
    )
    drawn = st.pills(
        "Or try drawn examples, one for each diagnosis", CLASSES, selection_mode="multi", format_func=DIAGNOSES.__getitem__
    )
    handed = [Handed(each.name, each.getvalue(), each.file_id) for each in uploaded]
    handed += [Handed(name_example(dx), draw_example(dx), dx, drawn=True) for dx in drawn]
    if len(handed) > MOST:
        many = f"{len(handed)} files were handed in, and {MOST} are answered at a time"
        st.warning(f"{many}: the others are left out until you remove some.")
    return handed[:MOST]


def show_one(memory: Memory, choices: Choices, answered: Answer, place: int) -> Shown | None:
    """One image and its answer; returns the map that is shown.

    place : on the page, from 0.
    """
    name, seen, prediction = words.escape_markdown(answered.handed.name), answered.seen, answered.prediction
    with st.container(border=True, key=f"case-{place}"):
        st.header(name, anchor=False)
        if seen is None or prediction is None:
            st.error(answered.error)
            return None
        for remark, is_warning in words.remarks(answered):
            (st.warning if is_warning else st.info)(remark)
        flag = words.flag_sentence(prediction)
        st.markdown("  \n".join([*([f"**{flag}**"] if flag else []), words.most_probable(prediction)]))
        shown = show_pictures(memory, choices, answered, place)
        st.html(markup.bars(prediction, calibrated=choices.opened.predictor.calibrator is not None))
        for sentence in words.set_sentences(prediction):
            st.caption(sentence)
    return shown


def show_pictures(memory: Memory, choices: Choices, answered: Answer, place: int) -> Shown | None:
    """The image, a map beside it, and the map over it; returns the map."""
    assert answered.seen is not None and answered.prediction is not None
    image, method, first = answered.seen.shown, choices.method, answered.prediction.top(1)[0][0]
    left, middle, right = st.columns(3)
    what = "drawn image" if answered.handed.drawn else "image"
    left.image(image, caption=what.capitalize(), alt=f"The {what} that was handed in", width="stretch", output_format="JPEG")
    if method is None:
        return None
    names = [first, *(dx for dx in CLASSES if dx != first)]
    dx = st.selectbox(
        "What the heat map shows: evidence for",
        names,
        format_func=partial(words.option, first=first),
        key=f"map-{place}-{answered.handed.id}",
    )
    asked = {"method": method, "diagnosis": dx}
    if method in PERTURBATION_METHODS and not has_map(memory, choices.opened, answered.handed, choices.patient, **asked):
        cost = f"{method} passes the image through the network up to thousands of times: seconds to minutes."
        if not st.button(f"Draw the {method} map", key=f"draw-{place}", help=cost):
            return None
    with st.spinner("Drawing the heat map ..."):
        heat = make_map(memory, choices.opened, answered, choices.patient, **asked)
    for column, opacity, caption in (
        (middle, 1.0, f"Heat map ({method})"),
        (right, choices.opacity, "Heat map over the image"),
    ):
        column.image(
            overlay(image, heat, opacity=opacity),
            caption=caption,
            alt=f"{caption}: evidence for {DIAGNOSES[dx]}",
            width="stretch",
            output_format="JPEG",
        )
    st.html(markup.legend(choices.opened.predictor.engine))
    if not heat.any():
        st.caption(f"The map is empty: the method found nothing that speaks for {DIAGNOSES[dx]}.")
    return dx, method, heat


def offer_downloads(choices: Choices, shown: Sequence[tuple[Answer, Shown | None]]) -> None:
    """The answers as a table and as a page; both are made when they are asked for."""
    now = datetime.now().astimezone()
    make_page = partial(
        printed_page, choices.opened.predictor, shown, choices.patient, choices.point, opacity=choices.opacity, now=now
    )
    with st.container(horizontal=True):
        st.download_button(
            "Download as CSV",
            partial(csv_table, [each for each, _ in shown], choices.opened.predictor.source),
            file_name="predictions.csv",
            mime="text/csv",
            on_click="ignore",
        )
        st.download_button(
            "Download as a page to print", make_page, file_name="predictions.html", mime="text/html", on_click="ignore"
        )


def show_test(card: dict[str, object]) -> None:
    """What the classifier reaches on test images."""
    test = card["test"]
    if not isinstance(test, dict):
        st.markdown("What it reaches on test images is not known here: `dvc repro` measures it, for the ensemble as a whole.")
        return
    st.markdown(
        f"On {test['images']} test images of {test['lesions']} lesions that it was not trained on; in brackets intervals of "
        f"{100 * test['confidence']:g} % confidence, by bootstrap over lesions."
    )
    rows = [(label, words.metric(name, test[name])) for name, label in words.METRICS.items()]
    st.html(markup.render("facts.html", caption="Test figures", heads=("What", "Reached"), rows=rows))


main()
