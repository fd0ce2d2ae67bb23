"""Python takes this for the package where a file of this folder is started by its path; it says how to start it."""

from pathlib import Path
from runpy import run_path

run_path(str(Path(__file__).resolve().parents[1] / "skinlesion" / "base" / "started_by_path.py"))
