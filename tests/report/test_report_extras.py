"""The report on the extras, and the checklists: each answer is decided by what the run left behind."""

import re
from pathlib import Path

import pytest

from skinlesion.audits import findings
from skinlesion.audits.findings import write_extra
from skinlesion.report import checklist
from skinlesion.report.evidence import NOT_APPLICABLE, OPEN, PARTLY, SATISFIED
from skinlesion.report.extras import EXTRAS
from skinlesion.report.inputs import read_inputs
from tests.report.report_cases import FOUND, Page, edit, write_report


def test_extras_that_were_not_run_are_named_with_their_command(quick: Path) -> None:
    html, markdown = write_report()
    for name in EXTRAS:
        command = f"dvc exp run -S 'extras.{name}=[run]' extras/dvc.yaml:{name.replace('_', '-')}"
        assert f"Not run. <code>{command}</code>".replace("'", "&#39;") in html and f"Not run. `{command}`" in markdown


@pytest.mark.parametrize("outdated", [False, True])
@pytest.mark.parametrize("name", EXTRAS)
def test_extras_are_reported_and_warn_if_old(quick: Path, monkeypatch: pytest.MonkeyPatch, name: str, outdated: bool) -> None:
    content, of, facts = FOUND[name]
    write_extra(name, content, of=of)
    if outdated:
        monkeypatch.setitem(findings._DIGESTS, of[-1], lambda: "0" * 64)
    html, markdown = write_report()
    for fact, text in facts.items():
        assert f"{fact} {text}" in Page(html).text.replace("\xa0", " ")
        assert f"- {EXTRAS[name][0]}, {fact}: {text}\n" in markdown.replace("\xa0", " ")
    for warning, text in (('role="note">Outdated: measured with other', html), ("Outdated: measured with other", markdown)):
        assert (warning in text) is outdated
    assert "another layout" not in html


def test_an_extra_of_unknown_layout_is_shown_as_it_stands(quick: Path) -> None:
    write_extra("leak", {"something": {"else": 0.4321}}, of=["images"])
    page = Page(write_report()[0])
    assert "metrics/extras/leak.json" in page.text and "another layout" in page.text
    assert '"something": { "else": 0.4321 }' in page.text


def statuses(key: str) -> dict[str, str]:
    """The status of each item of a checklist by number."""
    items = checklist.CHECKLISTS[key][1]
    return {number: answer.status for number, _, answer in checklist.answers(items, read_inputs())}


def test_the_checklists_have_their_items() -> None:
    assert [number for number, *_ in checklist.CLAIM] == [str(number) for number in range(1, 45)]
    assert list(dict.fromkeys(int(re.sub(r"\D", "", number)) for number, *_ in checklist.TRIPOD)) == list(range(1, 28))


def test_a_status_is_what_the_run_has(quick: Path) -> None:
    before = statuses("claim")
    assert (before["30"], before["33"], before["27"], before["31"]) == (OPEN, OPEN, NOT_APPLICABLE, SATISFIED)
    assert before["34"] == before["44"] == OPEN and statuses("tripod")["13"] == SATISFIED
    write_extra("robustness", FOUND["robustness"][0], of=["predictions"])
    write_extra("external", FOUND["external"][0], of=["predictions"])
    edit("metrics/gradcam.json", "energy_ratio", value=None)
    edit("models/classifier/base-0/config.json", "params", value={"weights": "imagenet"})
    Path("plots/split/age.csv").unlink()
    after = statuses("claim")
    assert (after["30"], after["33"], after["31"], after["24"], after["36"]) == (SATISFIED, PARTLY, PARTLY, PARTLY, OPEN)
    assert statuses("tripod")["13"] == NOT_APPLICABLE
    Path("data/predictions/test.csv").write_text("others", encoding="utf-8")
    assert statuses("claim")["30"] == PARTLY


def test_a_commit_that_was_edited_does_not_satisfy(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for commit, status in (("c" * 40, SATISFIED), (f"{'c' * 40}-dirty", PARTLY), (None, OPEN)):
        monkeypatch.setattr("skinlesion.report.inputs.git_commit", lambda commit=commit: commit)
        assert statuses("claim")["42"] == status
        assert f"code: `{commit or 'unknown'}`" in write_report()[1]
