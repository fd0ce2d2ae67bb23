"""Tables whose rows are images, as spreadsheets, scripts and disks leave them: metadata, predictions, lists of a split."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from hypothesis import strategies as st

from skinlesion import compare
from skinlesion.artifacts.raw import RAW, image_path
from skinlesion.artifacts.splits import SPLIT_NAMES, SPLITS
from skinlesion.artifacts.tables import LOGIT_COLUMNS, METADATA_COLUMNS, PROBABILITY_COLUMNS, write_table
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.decisions import write_calibration
from skinlesion.evaluation.results.predictions import PREDICTIONS, write_predictions
from stages import baselines, download, failures, selective, split, subgroups, threshold_sweep
from tests.conftest import WriteParams
from tests.data.download_cases import kaggle_files, table, write_files
from tests.evaluation import test_baselines, test_subgroups
from tests.properties.mutations import changed_bytes
from tests.properties.outcome import Property, message_of, refused_by_name

REQUIRED = {*METADATA_COLUMNS, *LOGIT_COLUMNS, *PROBABILITY_COLUMNS}
NO_ID = ("", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "a\nb", "a\rb", "a\0b", "\x7f", "\t")
NO_AGE = ("old", "-5", "-0.1", "121", "1e9", "1e400", "inf", "-inf", "0x10", "1_0", "True", "4 5", "\u0665", "na")
NO_NUMBER = ("", "nan", "NaN", "inf", "-inf", "high", "1,5", "1e999", "--1", "0x1p3")
# What a column cannot hold, and what it may.
IMPOSSIBLE: dict[str, tuple[str, ...]] = {
    "image_id": NO_ID,
    "lesion_id": ("", "a\nb", "a\0b"),
    "dx": ("", "melanoma", "MEL", " mel", "mel ", "nv;", "\u200bnv"),
    "age": NO_AGE,
    **dict.fromkeys(LOGIT_COLUMNS, NO_NUMBER),
    **dict.fromkeys(PROBABILITY_COLUMNS, (*NO_NUMBER, "-0.5", "1.5", "1e300")),
}
ODD = (
    *("", " ", "unknown", "Ünïcödé \U0001f9ec", "0", "-1", "1e308", "=1+1"),
    *("'", '"', "a,b", "a;b", "x" * 5000, "\u202egpj", "NULL"),
)


@dataclass(frozen=True)
class Damage:
    """A damaged table: its bytes, what was done to it, and whether that must be refused."""

    content: bytes
    how: str
    must: bool = field(default=False)


def to_csv(frame: pd.DataFrame, **options: str) -> bytes:
    return frame.to_csv(index=False, **{"lineterminator": "\n"} | options).encode()


def damaged_wholes(frame: pd.DataFrame, column: str, row: int) -> dict[str, tuple[bytes, bool]]:
    """What can be wrong with columns, rows and the dialect of a table, by name: its bytes, and whether they must be refused."""
    whole, required = to_csv(frame), column in REQUIRED
    header, *lines = whole.decode().splitlines()
    return {
        f"{column} left out": (to_csv(frame.drop(columns=column)), required),
        f"{column} twice": (to_csv(pd.concat([frame, frame[[column]]], axis=1)), True),
        f"{column} renamed": (to_csv(frame.rename(columns={column: column.upper()})), required),
        "a value too many in each row": ("\n".join([header, *(f"x,{line}" for line in lines)]).encode(), True),
        "columns turned round": (to_csv(frame[list(reversed(frame.columns))]), False),
        "row twice": (to_csv(pd.concat([frame, frame.iloc[[row]]])), True),
        "no rows": (to_csv(frame[:0]), True),
        "one row": (to_csv(frame.iloc[[row]]), False),
        "header twice": (whole + whole, True),
        "CRLF": (to_csv(frame, lineterminator="\r\n"), False),
        "CR": (to_csv(frame, lineterminator="\r"), False),
        "BOM": (b"\xef\xbb\xbf" + whole, False),
        "UTF-16": (whole.decode().encode("utf-16"), False),
        "semicolons": (to_csv(frame, sep=";"), False),
        "tabs": (to_csv(frame, sep="\t"), False),
        "pipes": (to_csv(frame, sep="|"), False),
        "an open quote": (whole.replace(b"\n", b'\n"', 1), False),
        "a quote too many": (whole.replace(b",", b',"', 9), False),
        "no line feed": (whole.rstrip(b"\n"), False),
        "blank lines": (whole.replace(b"\n", b"\n\n"), False),
        "zeros": (bytes(len(whole)), True),
        "empty": (b"", True),
        "HTML": (b"<!DOCTYPE html><html>not found</html>", True),
    }


@st.composite
def damaged_tables(draw: st.DrawFn, frame: pd.DataFrame) -> Damage:
    """A table with one thing wrong in it, and now and then nothing but its dialect."""
    changed, row = frame.astype(str).replace("nan", ""), draw(st.integers(0, len(frame) - 1))
    kind = draw(st.sampled_from(["impossible", "impossible", "odd", "whole", "whole", "whole", "bytes"]))
    if kind == "bytes":
        return Damage(draw(changed_bytes(to_csv(changed))), "damaged bytes")
    column = draw(st.sampled_from([name for name in changed.columns if kind != "impossible" or name in IMPOSSIBLE]))
    if kind == "whole":
        wholes = damaged_wholes(changed, column, row)
        how = draw(st.sampled_from(sorted(wholes)))
        content, must = wholes[how]
        return Damage(content, how, must)
    value = draw(st.sampled_from(IMPOSSIBLE[column]) if kind == "impossible" else st.sampled_from(ODD) | st.text(max_size=9))
    changed.loc[changed.index[row], column] = value
    return Damage(changed.to_csv(index=False).encode("utf-8", "replace"), f"{column} {value!r}", kind == "impossible")


def judge(path: Path, mains: tuple[Callable[[], None], ...], names: tuple[str, ...], damage: Damage) -> None:
    """Each stage either works on the damaged table or names it; what must be refused is."""
    path.write_bytes(damage.content)
    for main in mains:
        refused_by_name(message_of(main), *names, must=damage.must)


def prepare_download(write_params: WriteParams) -> None:
    write_files(Path("source"), kaggle_files(masks=False))
    write_params({"download.source": "local", "download.path": "source", "download.expect": "any"})


def judge_download(damage: Damage) -> None:
    """Rows that no longer name the images are named by their ids; and after a refusal there is no data/raw."""
    Path("source/HAM10000_metadata.csv").write_bytes(damage.content)
    said = message_of(download.main)
    refused_by_name(said, "HAM10000_metadata.csv", "have a row in the metadata and no image", "without a row", must=damage.must)
    assert Path("data/raw").exists() == (said is None)
    assert sorted(path.name for path in Path("data").iterdir()) == (["raw"] if said is None else [])
    if said is None:
        shutil.rmtree("data")


def metadata_rows() -> pd.DataFrame:
    """88 rows in which every diagnosis has lesions enough."""
    frame = test_subgroups.make_predictions(88)[list(METADATA_COLUMNS)]
    return frame.assign(dx=[CLASSES[row // 2 % 7] for row in range(len(frame))])


def prepare_split(write_params: WriteParams) -> None:
    frame = metadata_rows()
    Path("data/raw/images").mkdir(parents=True)
    for image_id in frame["image_id"]:
        image_path(image_id).touch()
    Path("data/raw/provenance.json").write_text('{"source": "sample", "synthetic": true, "licence": "CC0", "counts": {}}')
    write_params({"split.max_deviation": 50.0, "split.folds": 2, "split.validation_folds": 2})


FEW_DRAWS = {"bootstrap.draws": 100}
PREDICTED = test_subgroups.make_predictions(80)


def prepare_predictions(write_params: WriteParams) -> None:
    write_params(FEW_DRAWS)
    test_subgroups.write_inputs(PREDICTED)
    val = PREDICTED.assign(image_id="V" + PREDICTED["image_id"], lesion_id="V" + PREDICTED["lesion_id"])
    write_predictions({"val": val, "test": PREDICTED})
    write_predictions({"val": val, "test": PREDICTED}, Path("other"))
    write_calibration({"method": "temperature", "scale": [1.0] * 7, "bias": [0.0] * 7, "fitted_on": "val", "test_time": "none"})
    threshold_sweep.main()


def compare_with_other() -> None:
    compare.main(["other", ".", "--draws", "100"])


def prepare_lists(write_params: WriteParams) -> None:
    write_params(FEW_DRAWS)
    frames = {name: test_baselines.make_frame(name, seed=seed, images=30) for seed, name in enumerate(SPLIT_NAMES)}
    test_baselines.write_inputs(frames)
    write_table(frames["train"], Path("train.csv"), METADATA_COLUMNS)


LISTED = test_baselines.make_frame("train", seed=0, images=30)
TEST_TABLE, TRAIN_LIST = PREDICTIONS / "test.csv", SPLITS / "train.csv"
judge_split = partial(judge, RAW / "metadata.csv", (split.main,), ("metadata", "lesion", "diagnosis", "split."))
stages_after = (threshold_sweep.main, selective.main, subgroups.main, failures.main)
judge_after = partial(judge, TEST_TABLE, stages_after, ("test", "lesion"))
judge_compare = partial(judge, TEST_TABLE, (compare_with_other,), ("test.csv", "image", "lesion"))
judge_baselines = partial(judge, TRAIN_LIST, (baselines.main,), ("train.csv", "not prepared"))

PROPERTIES = (
    Property("metadata in download", prepare_download, damaged_tables(table()), judge_download, cost=4),
    Property("metadata in split", prepare_split, damaged_tables(metadata_rows()), judge_split, cost=10),
    Property("predictions in the stages after evaluate", prepare_predictions, damaged_tables(PREDICTED), judge_after, cost=30),
    Property("predictions in compare", prepare_predictions, damaged_tables(PREDICTED), judge_compare, cost=8),
    Property("lists in baselines", prepare_lists, damaged_tables(LISTED[list(METADATA_COLUMNS)]), judge_baselines, cost=60),
)
