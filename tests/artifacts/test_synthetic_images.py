"""`data/synthetic` as a later stage reads it: what is damaged, of another size or inconsistent is refused."""

from pathlib import Path

import numpy as np
import pytest

from skinlesion.artifacts.synthetic import SYNTHETIC, read_synthetic, write_synthetic
from tests.conftest import refuses


def write_some() -> None:
    """Four images of 32 px."""
    images = [np.zeros((4, 32, 32, 3), np.uint8)]
    write_synthetic(images, ["df", "df", "nv", "nv"], size=32, facts={"fingerprint": "0"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("index.csv", None, "index.csv not found: run `synthesize` first"),
        ("index.csv", "image_id,dx\n", "must have the columns synthetic_id, dx"),
        ("index.csv", "", "not a readable CSV"),
        ("index.csv", "synthetic_id,dx\na,df\n", "4 images and 1 rows in the index"),
        ("index.csv", "synthetic_id,dx\na,df\nb,xx\nc,df\nd,df\n", "unknown diagnosis xx"),
        ("facts.json", None, "facts.json not found"),
        ("facts.json", "{}", "lacks 'fingerprint'"),
        ("images.npy", None, "images.npy not found: run `synthesize` first"),
        ("images.npy", "no array", "is damaged"),
    ],
)
def test_damaged_synthetic_images_are_refused(workspace: Path, name: str, content: str | None, message: str) -> None:
    write_some()
    assert read_synthetic(32).dx == ["df", "df", "nv", "nv"]
    (SYNTHETIC / name).unlink()
    if content is not None:
        (SYNTHETIC / name).write_text(content)
    refuses(message, read_synthetic, 32)


def test_synthetic_images_of_another_size_or_kind_are_refused(workspace: Path) -> None:
    write_some()
    refuses(r"images of 32 px, and the prepared ones have 64 px: run `synthesize` again", read_synthetic, 64)
    np.save(SYNTHETIC / "images.npy", np.zeros((4, 32, 32, 3), np.float32))
    refuses("must be uint8", read_synthetic, 32)


@pytest.mark.parametrize("dx", [["df", "nv", "df", "nv"], ["df"], ["df"] * 5])
def test_nothing_is_written_where_images_and_diagnoses_disagree(workspace: Path, dx: list[str]) -> None:
    with pytest.raises(ValueError, match="diagnos"):
        write_synthetic([np.zeros((4, 32, 32, 3), np.uint8)], dx, size=32, facts={"fingerprint": "0"})
    assert not SYNTHETIC.exists()
