"""Publish a report that another job wrote: `publish.py FOLDER`, with the standard library, git and gh alone.

Reads   FOLDER/report.md and FOLDER/plots/*.png; the variables GITHUB_REPOSITORY, GITHUB_RUN_ID, GITHUB_STEP_SUMMARY, GH_TOKEN,
        and PULL_REQUEST (a number, or empty)
Writes  the pictures to the branch `pipeline-reports` of the git remote `origin`, since a comment can show only what has an
        address; the report to the job summary and, with PULL_REQUEST, to one comment, which later runs update

The report comes from a job that ran the code of a branch: nothing of it is run, only PNG files of plain names are published, and
the text goes to gh through its standard input.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

BRANCH = "pipeline-reports"
MARKER = "<!-- pipeline-report -->"
PICTURE = re.compile(r"[A-Za-z0-9_-]+\.png")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PICTURES, MOST_BYTES = 100, 2_000_000  # of pictures, of one of them
LONGEST = 65_536  # characters of a comment; GitHub refuses a longer one


def read_pictures(folder: Path) -> dict[str, bytes]:
    """The pictures that may be published, by name."""
    found = {}
    for path in sorted(folder.glob("*")):
        if not PICTURE.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            sys.exit(f"error: {path.name!r} is no picture that a report may bring")
        content = path.read_bytes()
        if not content.startswith(SIGNATURE) or len(content) > MOST_BYTES:
            sys.exit(f"error: {path.name} is no PNG file of at most {MOST_BYTES:,} bytes")
        found[path.name] = content
    if len(found) > MOST_PICTURES:
        sys.exit(f"error: {len(found)} pictures; a report may bring {MOST_PICTURES}")
    return found


def run(*command: str, folder: Path | None = None, body: str | None = None) -> str:
    """Run git or gh; its output. Ends the program with its message if it fails."""
    done = subprocess.run(command, cwd=folder, input=body, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def push_pictures(pictures: dict[str, bytes], run_id: str) -> str:
    """Add the pictures to the branch, in a folder named after the run; the commit that has them.

    The branch has no history in common with the code, and nobody merges it. Two runs may push at once: the second tries again.
    """
    address = run("git", "remote", "get-url", "origin")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        git = partial(run, "git", folder=folder)
        git("init", "--quiet", f"--initial-branch={BRANCH}")
        git("remote", "add", "origin", address)
        git("config", "user.name", "github-actions[bot]")
        git("config", "user.email", "41898282+github-actions[bot]@users.noreply.github.com")
        for attempt in range(3):
            if git("ls-remote", "--heads", "origin", BRANCH):
                git("fetch", "--quiet", "--depth=1", "origin", BRANCH)
                git("reset", "--quiet", "--hard", "FETCH_HEAD")
            (folder / run_id).mkdir(exist_ok=True)
            for name, content in pictures.items():
                (folder / run_id / name).write_bytes(content)
            git("add", "--all")
            git("commit", "--quiet", "--allow-empty", "--message", f"Pictures of run {run_id}")
            pushed = subprocess.run(
                ["git", "push", "--quiet", "origin", BRANCH], cwd=folder, capture_output=True, text=True, check=False
            )
            if pushed.returncode == 0:
                return git("rev-parse", "HEAD")
            print(f"push {attempt + 1} of 3 failed: {pushed.stderr.strip()}")
    sys.exit(f"error: the pictures could not be pushed to the branch {BRANCH}, see above")


def with_addresses(report: str, *, prefix: str) -> str:
    """The report with the addresses of its pictures."""
    return re.sub(r"\]\(plots/([A-Za-z0-9_-]+\.png)\)", rf"]({prefix}/\1?raw=true)", report)


def fitting(report: str) -> str:
    """The report, or as many of its lines as a comment can hold, and a line that says so."""
    if len(report) <= LONGEST:
        return report
    note = "\n\n(cut here: too long for a comment; the run's summary and artifact have all of it)\n"
    return report[: LONGEST - len(note)].rpartition("\n")[0] + note


def comment(report: str, *, repository: str, number: str) -> None:
    """Update the report's comment on a pull request, or write the first one."""
    comments = f"repos/{repository}/issues/{number}/comments"
    mine = f'.[] | select(.user.type == "Bot" and (.body | startswith("{MARKER}"))) | .id'
    gh = partial(run, "gh", "api")
    found = gh("--paginate", f"{comments}?per_page=100", "--jq", mine).split()
    body = json.dumps({"body": fitting(report)})
    if found:
        gh("--method", "PATCH", f"repos/{repository}/issues/comments/{found[0]}", "--input", "-", body=body)
    else:
        gh("--method", "POST", comments, "--input", "-", body=body)


def main() -> None:
    """Publish."""
    folder = Path(sys.argv[1])
    repository, run_id = os.environ["GITHUB_REPOSITORY"], os.environ["GITHUB_RUN_ID"]
    number = os.environ.get("PULL_REQUEST", "")
    if not run_id.isdecimal() or not re.fullmatch(r"\d*", number):
        sys.exit(f"error: GITHUB_RUN_ID ({run_id!r}) and PULL_REQUEST ({number!r}) must be numbers")
    pictures = read_pictures(folder / "plots")
    commit = push_pictures(pictures, run_id)
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    report = with_addresses(
        (folder / "report.md").read_text(encoding="utf-8"), prefix=f"{server}/{repository}/blob/{commit}/{run_id}"
    )
    with Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as summary:
        summary.write(report)
    if number:
        comment(report, repository=repository, number=number)
    print(f"{len(pictures)} pictures at {commit[:10]}" + (f", comment on #{number}" if number else ""))


if __name__ == "__main__":
    main()
