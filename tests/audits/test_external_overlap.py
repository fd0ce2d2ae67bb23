"""No external image may be one of ours: ids, lesions, bytes, pixels and thumbnails are compared, each copy is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extras import external
from skinlesion.artifacts.raw import RAW, image_path, list_images, read_metadata
from skinlesion.artifacts.splits import SPLIT_NAMES, read_split
from skinlesion.audits.external.dataset import EXTERNAL
from skinlesion.audits.external.overlap import SAME_PICTURE, nearest_thumbnails, read_contents
from skinlesion.base.errors import PipelineError
from tests.audits.external_cases import rewrite, run_stage
from tests.conftest import refuses
from tests.data.download_cases import encoded
from tests.pipeline.clone import set_params


def reencoded(path: Path, **options: Any) -> bytes:
    """The picture as another file of the same format."""
    with Image.open(path) as image:
        return encoded(image.resize((96, 96)), "JPEG", **options)


def with_comment(path: Path) -> bytes:
    """Other bytes of the same pixels: a comment segment behind the start of the image."""
    content = path.read_bytes()
    return content[:2] + b"\xff\xfe\x00\x06same" + content[2:]


@pytest.mark.parametrize("name", SPLIT_NAMES)
@pytest.mark.parametrize("column", ["image_id", "lesion_id"])
def test_an_image_or_a_lesion_of_ours_is_no_external_one(external_project: Path, name: str, column: str) -> None:
    ours, theirs = read_split(name)[column].iloc[0], read_metadata(EXTERNAL)
    first = theirs[column].iloc[0]
    if column == "image_id":
        image_path(first, EXTERNAL).rename(image_path(ours, EXTERNAL))
    rewrite(theirs.replace({column: {first: ours}}))
    refuses(rf"not external.*\(1 by {column}: {ours} \({name}\)\): take them out", external.main)
    assert not external.PREDICTIONS.exists() and not Path("metrics/extras").exists()


@pytest.mark.parametrize(
    ("copied", "by"),
    [
        (lambda path: path.read_bytes(), ("file", "pixels", "thumbnail")),
        (with_comment, ("pixels", "thumbnail")),
        (lambda path: reencoded(path, quality=70), ("thumbnail",)),
    ],
)
def test_a_copy_with_another_id_is_left_out(external_project: Path, copied: Callable[[Path], bytes], by: tuple[str, ...]) -> None:
    ours, theirs = read_split("train")["image_id"].iloc[0], read_metadata(EXTERNAL)["image_id"].iloc[3]
    image_path(theirs, EXTERNAL).write_bytes(copied(image_path(ours)))
    message = "; ".join(f"1 by {name}: {theirs} is {ours} (train)" for name in by)
    with pytest.raises(PipelineError) as refused:
        external.main()
    assert f"({message}): take them out" in str(refused.value)


def test_what_only_looks_alike_can_be_kept_and_is_named(external_project: Path, caplog: pytest.LogCaptureFixture) -> None:
    set_params(Path("params.yaml"), {"external.near_copies": "report"})
    ours, theirs = read_split("train")["image_id"].iloc[0], read_metadata(EXTERNAL)["image_id"].iloc[3]
    place = image_path(theirs, EXTERNAL)
    place.write_bytes(reencoded(image_path(ours), quality=70))
    metrics, _ = run_stage()
    assert metrics["proof"]["near_copies"] == [f"{theirs} is {ours} (train)"]
    assert 0 < metrics["proof"]["nearest_thumbnails"]["distance"] <= SAME_PICTURE
    assert "1 external image(s) look like one of ours" in caplog.text
    place.write_bytes(image_path(ours).read_bytes())
    refuses(r"\(1 by file: .*; 1 by pixels: ", external.main)


def test_nearest_thumbnails_are_those_of_a_plain_search() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 256, (count, 60)).astype(np.float32) for count in (23, 31))
    second[7] = first[4] + 1
    nearest, distances = nearest_thumbnails(first, second)
    plain = np.sqrt(((first[:, None].astype(np.float64) - second[None]) ** 2).mean(axis=2))
    assert np.array_equal(nearest, plain.argmin(axis=1)) and distances == pytest.approx(plain.min(axis=1))
    assert (nearest[4], distances[4]) == (7, pytest.approx(1.0))


def test_contents_do_not_depend_on_the_number_of_threads(external_project: Path) -> None:
    ids = list_images()
    one, four = (read_contents(ids, RAW, workers=workers) for workers in (1, 4))
    assert (one.files, one.pixels) == (four.files, four.pixels) and np.array_equal(one.thumbnails, four.thumbnails)
    assert len(set(one.files)) == len(set(one.pixels)) == len(ids)
