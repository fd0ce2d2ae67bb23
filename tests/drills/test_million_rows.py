"""Drill: tables of a million images. Time and peak memory of the stages that do nothing but read, deal and count them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from skinlesion.artifacts.raw import RAW
from skinlesion.artifacts.splits import SPLIT_NAMES, read_split
from skinlesion.artifacts.tables import METADATA_COLUMNS, write_table
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.decisions import write_operating_points
from skinlesion.evaluation.results.predictions import write_predictions
from tests.conftest import ROOT, WriteParams
from tests.drills.conftest import wants_full
from tests.drills.ledger import Corrupt, Ledger
from tests.loopback import high_water
from tests.stage_cases import with_logits

SHORT, FULL = 100_000, 1_000_000
SHARES = (0.033, 0.051, 0.11, 0.012, 0.111, 0.669, 0.014)  # of the diagnoses, about those of HAM10000
# What a row may cost, several times what it does on a busy machine: quadratic code costs thousands of times as much.
SECONDS_A_ROW, START_SECONDS = 0.0006, 60
BYTES_A_ROW, START_BYTES = 6_000, 2**30


def make_metadata(rows: int) -> pd.DataFrame:
    """Lesions of one to several images, in HAM10000's proportions, in no order."""
    generator = np.random.default_rng(0)
    lesions = generator.integers(0, rows * 3 // 4, rows)
    labels = generator.choice(len(CLASSES), rows * 3 // 4, p=SHARES)[lesions]
    return pd.DataFrame(
        {
            "lesion_id": np.char.add("HAM_", lesions.astype(str)),
            "image_id": np.char.add("ISIC_", np.char.zfill(np.arange(rows).astype(str), 8)),
            "dx": np.array(CLASSES)[labels],
            "dx_type": "histo",
            "age": np.where(lesions % 20 == 3, np.nan, 5.0 * (lesions % 18)),
            "sex": np.array(["female", "male", ""])[lesions % 3],
            "localization": np.array(["back", "face"])[lesions % 2],
        }
    )


def measured(module: str, rows: int, facts: dict[str, object]) -> None:
    """Run a stage in a process of its own; its rows, seconds and peak memory are said, and must be in proportion."""
    started = time.monotonic()
    peak, ended = 0, 0
    with subprocess.Popen([sys.executable, "-m", module], env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        while not ended:
            # Not ru_maxrss, in which a process begins with that of the one that started it.
            peak = max(peak, high_water(process.pid))
            time.sleep(0.02)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
    facts |= {"rows": rows, "seconds": time.monotonic() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    facts["peak_mib"] = peak / 2**20
    assert process.returncode == 0
    assert usage.ru_utime + usage.ru_stime < START_SECONDS + SECONDS_A_ROW * rows, facts
    assert peak < START_BYTES + BYTES_A_ROW * rows, facts


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted otherwise")
def test_a_million_rows(workspace: Path, write_params: WriteParams, ledger: Ledger) -> None:
    rows = FULL if wants_full() else SHORT
    write_params()
    metadata = make_metadata(rows)
    images = RAW / "images"
    images.mkdir(parents=True)
    for image_id in metadata["image_id"]:
        (images / f"{image_id}.jpg").touch()
    write_table(metadata, RAW / "metadata.csv", METADATA_COLUMNS)
    (RAW / "provenance.json").write_text('{"source": "sample", "synthetic": true, "licence": "CC0", "counts": {}}')
    with ledger.round("million rows", f"split of {rows:,} rows") as facts:
        measured("stages.split", rows, facts)
        lists = {name: read_split(name) for name in SPLIT_NAMES}
        dealt = set().union(*(part["image_id"] for part in lists.values()))
        if sum(map(len, lists.values())) != rows or dealt != set(metadata["image_id"]):
            raise Corrupt("the lists do not hold every image once")

    point = {"rule": "youden", "constraint": None, "threshold": 0.5, "val": {}}
    about = {"target": "mel", "classes": ["mel"], "score": "s", "rule": "r", "chosen_on": "val", "points": {"youden": point}}
    write_operating_points(about)
    logits = np.random.default_rng(1).normal(size=(rows, len(CLASSES))).round(4)
    write_predictions({"test": with_logits(metadata, logits, softmax(logits, axis=1).round(8))})
    with ledger.round("million rows", f"failures of {rows:,} predictions") as facts:
        measured("stages.failures", rows, facts)
