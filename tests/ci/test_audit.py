"""The audit of the packages: what it tolerates and until when, with answers of pip-audit recorded here instead of its service."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ci import audit
from tests.conftest import ROOT, refuses

TODAY = datetime.now(UTC).date()
HOLE = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1", "GHSA-aaaa-bbbb-cccc"], "fix_versions": ["13.0.1"]}
ENTRY = {"id": "CVE-2026-1", "package": "pillow", "reason": "no such images here", "until": TODAY + timedelta(days=30)}
PAST = ENTRY | {"until": TODAY - timedelta(days=1)}
# Stands for pip-audit: `python -m pip_audit` finds it in the working directory. Its answer lies beside it.
FAKE = """import pathlib, sys
print("what it says of itself", file=sys.stderr)
print(pathlib.Path("answer.json").read_text())
sys.exit(1)
"""


@pytest.fixture
def answer(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set what pip-audit answers and what the allow-list has; the audit is then run as a user runs it."""
    (workspace / "ci").mkdir()
    (workspace / "pip_audit.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["ci.audit"])

    def set_answer(packages: list[dict[str, Any]] | str, *entries: dict[str, Any], toml: str = "") -> None:
        text = packages if isinstance(packages, str) else json.dumps({"dependencies": packages, "fixes": []})
        (workspace / "answer.json").write_text(text, encoding="utf-8")
        lines = []
        for entry in entries:
            lines += ["[[allow]]", *(f"{key} = {json.dumps(v) if isinstance(v, str) else v}" for key, v in entry.items())]
        (workspace / audit.ALLOW).write_text("\n".join(lines) + toml, encoding="utf-8")

    return set_answer


def packages(*holes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "numpy", "version": "2.4.6", "vulns": []}, {"name": "pillow", "version": "13.0.0", "vulns": list(holes)}]


def test_no_hole_and_a_tolerated_one_pass(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answer(packages())
    audit.main()
    assert "no hole is known but the 0" in capsys.readouterr().out
    answer(packages(HOLE), ENTRY)
    audit.main()
    assert "no hole is known but the 1" in capsys.readouterr().out
    answer(packages(HOLE), ENTRY | {"until": TODAY})  # its last day still counts
    audit.main()


@pytest.mark.parametrize(
    ("found", "entries", "message"),
    [
        ([HOLE], [], r"pillow 13.0.0: CVE-2026-1, GHSA-aaaa-bbbb-cccc, PYSEC-2026-1 \(fixed in 13.0.1\)"),
        ([HOLE | {"fix_versions": []}], [], r"no fixed version yet"),
        ([HOLE], [ENTRY | {"package": "numpy"}], r"pillow 13.0.0(.|\n)*CVE-2026-1 of numpy is not found"),
        ([], [ENTRY], r"CVE-2026-1 of pillow is not found any more: take the entry out"),
        ([HOLE], [PAST], r"CVE-2026-1 of pillow is tolerated until .*, which must be from today"),
        ([HOLE], [ENTRY | {"until": TODAY + timedelta(days=181)}], r"from today to 180 days ahead"),
        ([HOLE], [ENTRY | {"until": "soon"}], r"allow.0.until = 'soon': Input should be a valid date"),
        ([HOLE], [ENTRY | {"reason": " "}], r"allow.0.reason = ' ': "),
        ([HOLE], [ENTRY | {"why": "x"}], r"allow.0.why = 'x': Extra inputs are not permitted"),
    ],
    ids=["unknown", "no fix", "other", "stale", "past", "far", "no day", "no reason", "key"],
)
def test_what_fails(answer: Any, found: list[dict[str, Any]], entries: list[dict[str, Any]], message: str) -> None:
    answer(packages(*found), *entries)
    refuses(message, audit.main)


def test_a_package_that_was_not_looked_up_fails(answer: Any) -> None:
    """pip-audit itself ends well then, and says that nothing is known."""
    answer([{"name": "torch", "skip_reason": "Dependency not found on PyPI"}, *packages()])
    refuses(r"1 of 3 packages were not looked up: torch \(Dependency not found on PyPI\)", audit.main)
    answer([])
    refuses("0 of 0 packages were not looked up", audit.main)


def test_no_answer_and_an_unreadable_list_fail(answer: Any) -> None:
    answer("no JSON")
    refuses(r"`pip-audit .*` gave no result: what it says of itself", audit.main)
    answer(packages(), toml="allow = [")
    refuses(r"audit-allow.toml is not valid TOML", audit.main)
    answer(packages(), toml="alow = []")
    refuses(r"alow = .*: Extra inputs are not permitted", audit.main)


def test_the_list_in_the_repository_is_in_date() -> None:
    audit.read_allowed(ROOT / audit.ALLOW, TODAY)


def test_every_requirements_file_is_asked_about() -> None:
    asked = {word for question in audit.QUESTIONS for word in question}
    files = {path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("requirements*.txt"), *ROOT.glob("requirements/*"))}
    covered_by_the_locks = {"requirements.txt", "requirements/remotes.txt", "requirements/tools.lock", "requirements/app.txt"}
    assert files - covered_by_the_locks <= asked
