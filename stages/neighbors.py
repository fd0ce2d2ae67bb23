"""Show which training cases are nearest to a test image in the classifier's own space, and measure what they tell.

Reads   params `neighbors`, `bootstrap` and `machine`; models/classifier; data/predictions/test.csv; data/prepared;
        data/splits/train.csv and facts.json; data/raw (images of the cases shown)
Writes  plots/neighbors/: neighbors.csv (the `k` nearest training lesions of every test image), by_class.csv, and the pages
        neighbors_1.png, ... of errors, missed melanomas first; metrics/neighbors.json

Images that `synthesize` drew are not searched: they are nobody's case. Nothing is chosen here, and the neighbours' vote has no
part in any prediction.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import CLASSIFIER, METRICS, PLOTS
from skinlesion.artifacts.prepared import PreparedImages, read_prepared
from skinlesion.artifacts.splits import SPLITS, SplitFacts, read_split, read_split_facts
from skinlesion.artifacts.tables import write_table
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.devices import choose_device
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import load_params
from skinlesion.data.originals import read_image
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.evaluation.results.predictions import read_predictions
from skinlesion.explanation.neighbors.embedding import embed
from skinlesion.explanation.neighbors.metrics import measure_neighbors
from skinlesion.explanation.neighbors.pages import CaseWithNeighbors, Neighbor, Shares, draw_pages
from skinlesion.explanation.neighbors.search import COLUMNS, check_apart, choose_errors, find_neighbors, neighbor_table
from skinlesion.model.classifier import Classifier, load_ensemble

BY_CLASS = ("dx", "share", "low", "high", "support", "training_lesions")
SHARES: dict[Shares, str] = {"truth": " = truth", "prediction": " = predicted", "neither": ""}  # beside a neighbor's diagnosis

logger = logging.getLogger(__name__)


@one_at_a_time("neighbors")
def main() -> None:
    whole = load_params()
    params, machine, how = whole.neighbors, whole.machine, whole.bootstrap
    keep_freed_memory()
    members, prepared, facts = load_ensemble(), read_prepared(), read_split_facts()
    train, test = read_split("train"), read_predictions("test")
    check_same_lists(members, facts)
    check_apart(train, test)
    device, batch = choose_device(machine.device), machine.batch_size
    searched, wanted = (embed(members, prepared, frame["image_id"], device=device, batch_size=batch) for frame in (train, test))
    zeros = {name: int((~rows.any(axis=1)).sum()) for name, rows in (("train", searched), ("test", wanted))}
    if any(zeros.values()):
        logger.warning("%(train)d training and %(test)d test images have no feature at all: nothing is similar to them", zeros)
    found = find_neighbors(wanted, searched, train, k=params.k)

    table = neighbor_table(test, train, found)
    labels = pd.Index(CLASSES).get_indexer(table["neighbor_dx"]).reshape(len(test), params.k)
    measured = measure_neighbors(test, labels, train, how)
    cases = choose_errors(test, cases=params.cases)
    title = describe_page(members, params.k) + (", synthetic images" if facts.synthetic else "")
    with atomic_folder(PLOTS / "neighbors") as folder:
        draw_pages(load_cases(cases, table, prepared), folder, title=title, neighbors=params.k)
        write_table(table, folder / "neighbors.csv", COLUMNS)
        write_table(by_class(measured), folder / "by_class.csv", BY_CLASS)
    described = {
        "split": "test",
        "k": params.k,
        "images": len(test),
        "lesions": int(test["lesion_id"].nunique()),
        "searched": {"images": len(train), "lesions": int(train["lesion_id"].nunique())},
        "images_without_feature": zeros,
        "pictured": len(cases),
        "bootstrap": describe_draws(how),
    }
    write_json(METRICS / "neighbors.json", described | measured)
    agreement = measured["agreement"]
    logger.info(
        "the network is right in %.3f of %d test images where the %d nearest training lesions vote as it does, and in %.3f of %d",
        agreement["agree"]["value"], agreement["agree"]["images"], params.k,
        agreement["disagree"]["value"], agreement["disagree"]["images"],
    )  # fmt: skip


def check_same_lists(members: dict[str, Classifier], facts: SplitFacts) -> None:
    """Refuse a classifier that was trained on other lists: these would not be the cases that it learnt from."""
    if {config.fingerprint for _, config in members.values()} != {facts.fingerprint}:
        raise PipelineError(
            f"{CLASSIFIER} was trained on other lists than those in {SPLITS}, so these are not the cases "
            "that it learnt from: run `train` again, or `dvc repro`"
        )


def describe_page(members: dict[str, Classifier], k: int) -> str:
    """The pages' title."""
    networks = " and ".join(dict.fromkeys(config.backbone for _, config in members.values()))
    several = f", mean of {len(members)} members" if len(members) > 1 else ""
    lesions = "the training lesion" if k == 1 else f"the {k} training lesions"
    return (
        f"Errors on split 'test' and {lesions} nearest to each\n"
        f"below a neighbour's id: diagnosis, cosine similarity of the features of {networks}{several}"
    )


def by_class(measured: dict[str, Any]) -> pd.DataFrame:
    """Columns `BY_CLASS`: the share of neighbours that have the true class, its interval, and images, of each class."""
    rows = [
        {"dx": dx, "share": values["value"], "support": values["images"], **values}
        for dx, values in measured["share_of_truth"]["by_class"].items()
    ]
    return pd.DataFrame(rows)


def load_cases(cases: pd.DataFrame, table: pd.DataFrame, prepared: PreparedImages) -> Iterator[CaseWithNeighbors]:
    """Each case with the originals of its image and of its neighbours."""
    sizes = prepared.index.set_index("image_id")[["width", "height"]]

    def original(image_id: str) -> np.ndarray:
        return read_image(image_id, width=int(sizes.at[image_id, "width"]), height=int(sizes.at[image_id, "height"]))

    grouped = table.groupby("image_id", sort=False)
    for case in cases.itertuples():
        neighbors = []
        for row in grouped.get_group(case.image_id).itertuples():
            shared: dict[str, Shares] = {row.predicted: "prediction", row.dx: "truth"}
            shares = shared.get(row.neighbor_dx, "neither")
            title = f"{row.rank}: {row.neighbor_image_id}\n{row.neighbor_dx}{SHARES[shares]}, {row.similarity:.3f}"
            neighbors.append(Neighbor(original(row.neighbor_image_id), title, shares))
        title = f"{case.image_id}\ntruth {case.dx}, predicted {case.predicted} {case.probability:.2f}"
        yield CaseWithNeighbors(original(case.image_id), title, neighbors)


if __name__ == "__main__":
    run_stage(main)
