"""Carrying out a job of a workflow here: its steps in their order, with their folders and variables."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.conftest import ROOT
from tests.pipeline.clone import user_environment

EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")


@dataclass
class Job:
    """A job of `.github/workflows/NAME`, and what its expressions are here.

    values : the value of every expression that the job uses (`github.run_id`); one that is missing stops the test.
    checkouts : the git repository that `actions/checkout` clones.
    artifacts : where `actions/upload-artifact` puts a folder, and `actions/download-artifact` takes it from.
    """

    workflow: str
    name: str
    values: dict[str, str]
    origin: Path
    artifacts: Path

    @property
    def content(self) -> dict[str, Any]:
        text = (ROOT / ".github/workflows" / self.workflow).read_text(encoding="utf-8")
        return YAML(typ="safe", pure=True).load(text)["jobs"][self.name]

    def fill(self, text: object) -> str:
        """A text of the workflow with its expressions replaced."""
        return EXPRESSION.sub(lambda found: self.values[found[1]], str(text))

    def carry_out(self, folder: Path, environment: dict[str, str]) -> dict[str, str]:
        """Carry out the job in an empty folder; what each step of a script said, by the step's name. Fails where a step fails."""
        return dict(self._outputs(folder, environment))

    def _outputs(self, folder: Path, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
        job = self.content
        where = job.get("defaults", {}).get("run", {}).get("working-directory", ".")
        variables = {name: self.fill(value) for name, value in job.get("env", {}).items()}
        for step in job["steps"]:
            if not self._wanted(step):
                continue
            if "uses" in step:
                self._use(step["uses"].partition("@")[0], step.get("with", {}), folder)
                continue
            own = {name: self.fill(value) for name, value in step.get("env", {}).items()}
            given = {"cwd": folder / where, "env": user_environment() | environment | variables | own}
            command = ["bash", "-e", "-c", step["run"]]
            done = subprocess.run(command, **given, capture_output=True, text=True, timeout=400, check=False)
            output = done.stdout + done.stderr
            assert done.returncode == 0, f"step {step['name']!r}: {step['run']}\n{output}"
            yield step["name"], output

    def _wanted(self, step: dict[str, Any]) -> bool:
        condition = step.get("if")
        if condition in (None, "always()", "failure()"):
            return condition != "failure()"  # a step that fails ends the test
        name, expected = condition.split(" == ")
        return self.values[name] == expected.strip("'")

    def _use(self, action: str, options: dict[str, Any], folder: Path) -> None:
        if action == "actions/checkout":
            target = folder / options.get("path", ".")
            subprocess.run(["git", "clone", "--quiet", str(self.origin), str(target)], check=True, capture_output=True)
            subprocess.run(["git", "checkout", "--quiet", self.fill(options.get("ref", "HEAD"))], cwd=target, check=True)
        elif action == "actions/upload-artifact":
            self.artifacts.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", f"{folder / options['path']}/.", str(self.artifacts)], check=True)
        elif action == "actions/download-artifact":
            subprocess.run(["cp", "-r", str(self.artifacts), str(folder / options["path"])], check=True)
        else:
            raise AssertionError(f"the rehearsal does not know {action}")
