"""How a stage starts."""

import gc
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_started_stage_looks_for_garbage_in_its_main_and_not_while_it_imports(tmp_path: Path) -> None:
    package = tmp_path / "started"
    package.mkdir()
    (package / "__init__.py").write_text("from skinlesion.base.errors import import_faster\n\nimport_faster()\n")
    (package / "stage.py").write_text(
        "import gc\n\nfrom skinlesion.base.errors import run_stage\n\n"
        "print(gc.isenabled())\nrun_stage(lambda: print(gc.isenabled(), gc.get_freeze_count() > 0))\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-m", "started.stage"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


def test_a_stage_that_is_imported_leaves_the_search_for_garbage_on() -> None:
    import stages  # noqa: F401

    assert gc.isenabled()
