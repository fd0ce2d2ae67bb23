"""Archives that must not be trusted and images that are not whole."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from skinlesion.data.sources import archives
from skinlesion.data.sources.archives import member_names, read_members
from skinlesion.data.sources.images import check_files
from tests.conftest import refuses
from tests.data.download_cases import encoded, huge_jpeg, huge_png, jpeg, mask, pack, write_files


def members(path: Path) -> list[tuple[str, bytes]]:
    return list(read_members(path, lambda name: name.startswith("ISIC_")))


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_no_path_of_an_archive_is_used(tmp_path: Path) -> None:
    names = ["../../ISIC_0000001.jpg", "/etc/ISIC_0000002.jpg", "C:\\x\\ISIC_0000003.jpg"]
    names += ["a/b/", "..", "../passwd", "x/ISIC_4.jpg/"]
    path = saved(tmp_path / "evil.zip", pack({name: name.encode() for name in names}))
    assert members(path) == [(f"ISIC_000000{number}.jpg", names[number - 1].encode()) for number in (1, 2, 3)]
    assert member_names(path) == ["..", "ISIC_0000001.jpg", "ISIC_0000002.jpg", "ISIC_0000003.jpg", "passwd"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.zip"]


def test_an_archive_with_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    path = saved(tmp_path / "many.zip", pack({f"ISIC_{number}": b"" for number in range(3)}))
    assert len(members(path)) == 3
    path.write_bytes(pack({f"ISIC_{number}": b"" for number in range(4)}))
    refuses(r"many\.zip has 4 members, more than 3", member_names, path)


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "bomb.zip", pack({"ISIC_1": bytes(1000), "ISIC_2": bytes(1001), "other": bytes(5000)}))
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 2001)
    assert [len(content) for _, content in members(path)] == [1000, 1001]
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 2000)
    refuses(r"bomb\.zip unpacks to more than 2,000 bytes", members, path)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1000)
    refuses(r"bomb\.zip: ISIC_2 unpacks to more than 1,000 bytes", members, path)


def test_a_header_that_understates_a_member_does_not_get_past(tmp_path: Path) -> None:
    content = pack({"ISIC_1": b"x" * 5000})
    size = (5000).to_bytes(4, "little")
    assert content.count(size) == 2  # local and central header
    path = saved(tmp_path / "liar.zip", content.replace(size, (10).to_bytes(4, "little")))
    refuses(r"liar\.zip is no whole zip archive.*Bad CRC-32", members, path)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "method"])
def test_a_broken_archive_is_named(tmp_path: Path, damage: str) -> None:
    whole = pack({"ISIC_0000001.jpg": jpeg(1)})
    middle = len(whole) // 2
    central = whole.index(b"PK\x01\x02")
    broken = {
        "truncated": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "text": b"<html>not an archive</html>",
        "method": whole[: central + 10] + b"\x63\x00" + whole[central + 12 :],
    }
    path = saved(tmp_path / "part_1.zip", broken[damage])
    refuses(r"part_1\.zip is no whole zip archive, or is packed in a way", members, path)


def test_an_encrypted_archive_is_named(tmp_path: Path) -> None:
    content = bytearray(pack({"ISIC_0000001.jpg": jpeg(1)}))
    content[6] |= 1  # the flag of the local header, and of the central one
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path = saved(tmp_path / "locked.zip", content)
    assert zipfile.ZipFile(path).infolist()[0].flag_bits & 1
    refuses(r"locked\.zip: ISIC_0000001\.jpg is encrypted", members, path)


def raw_with(tmp_path: Path, image: bytes, segmentation: bytes | None = None) -> Path:
    """A `data/raw` of two images, of which the second is as given."""
    files = {"images/ISIC_0000001.jpg": jpeg(1), "images/ISIC_0000002.jpg": image}
    files |= {} if segmentation is None else {"segmentations/ISIC_0000002_segmentation.png": segmentation}
    return write_files(tmp_path / "raw", files)


def check(raw: Path) -> int:
    return check_files(raw, ["ISIC_0000001", "ISIC_0000002"])


def test_whole_files_pass(tmp_path: Path) -> None:
    assert check(raw_with(tmp_path, jpeg(2))) == 0
    assert check(raw_with(tmp_path, jpeg(2), mask())) == 1
    assert check(raw_with(tmp_path, jpeg(2), encoded(Image.open(io.BytesIO(mask())).convert("1"), "PNG"))) == 1  # a bit a pixel


@pytest.mark.parametrize(
    ("image", "segmentation", "reason"),
    [
        (jpeg(2)[:-200], None, "truncated"),
        (jpeg(2)[:30], None, ""),
        (b"", None, "not a JPEG file"),
        (mask(), None, "not a JPEG file"),
        (jpeg(2, "L"), None, "L, not RGB"),
        (huge_jpeg(), None, "10000 x 10000 pixels, over the 25 megapixels"),
        (huge_jpeg(5001, 5000), None, "5001 x 5000 pixels, over the 25 megapixels"),
        (huge_jpeg(40_000, 40_000), None, ""),  # Pillow's own limit comes first
        (jpeg(2), mask(30, 40), "30 x 40 pixels, and its image 40 x 30"),
        (jpeg(2), mask()[:-30], ""),
        (jpeg(2), jpeg(2), "not a PNG file"),
        (jpeg(2), mask(value=1), "marks no lesion"),
        (jpeg(2), huge_png(), "10000 x 10000 pixels, over the 25 megapixels"),
    ],
)
def test_an_unusable_image_or_mask_is_named(tmp_path: Path, image: bytes, segmentation: bytes | None, reason: str) -> None:
    name = r"ISIC_0000002\.jpg" if segmentation is None else r"ISIC_0000002_segmentation\.png"
    refuses(rf"1 of 2 images cannot be used: {name} \(.*{reason}", check, raw_with(tmp_path, image, segmentation))


def test_a_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[tuple[int, int]] = []
    load = Image.Image.load
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: decoded.append(image.size) or load(image))
    refuses("over the 25 megapixels", check, raw_with(tmp_path, huge_jpeg()))
    assert decoded == [(40, 30)]


def test_all_broken_images_are_counted(tmp_path: Path) -> None:
    ids = [f"ISIC_{number:07d}" for number in range(8)]
    raw = write_files(tmp_path / "raw", {f"images/{image_id}.jpg": b"broken" for image_id in ids})
    refuses(r"8 of 8 images cannot be used: ISIC_0000000\.jpg .*ISIC_0000004\.jpg .* and 3 more", check_files, raw, ids)
