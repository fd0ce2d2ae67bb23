"""What `provenance.json` says of a set of images: what the files were, and how many there are of what."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.base.files import file_digest


def count(metadata: pd.DataFrame, masks: int) -> dict[str, Any]:
    """How many images, lesions, masks, and images a diagnosis and a way of diagnosis."""
    by_kind = {name: metadata[name].value_counts().sort_index().to_dict() for name in ("dx", "dx_type")}
    return {"images": len(metadata), "lesions": metadata["lesion_id"].nunique(), "masks": masks, **by_kind}


def folder_entry(name: str, files: list[tuple[str, int]]) -> dict[str, Any]:
    """The provenance of a folder from its files' MD5s and bytes."""
    joined = "\n".join(sorted(digest for digest, _ in files)).encode()
    digest = hashlib.md5(joined, usedforsecurity=False).hexdigest()
    return {"name": name, "count": len(files), "bytes": sum(size for _, size in files), "md5_of_sorted_md5s": digest}


def describe_sample(raw: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The provenance of synthetic images in `raw` (laid out as `data/raw`) that were drawn with `settings`."""
    table = raw / "metadata.csv"
    files = [{"name": table.name, "bytes": table.stat().st_size, "md5": file_digest(table, "md5")}]
    for folder in (raw / "images", raw / "segmentations"):
        if folder.is_dir():
            drawn = [(file_digest(path, "md5"), path.stat().st_size) for path in folder.iterdir()]
            files.append(folder_entry(f"{folder.name}/", drawn))
    return {
        "synthetic": True,
        "origin": f"skinlesion.data.sample.sample.draw_sample({', '.join(f'{key}={value}' for key, value in settings.items())})",
        "files": files,
        "licence": "CC0-1.0",
        "citation": "Synthetic images, drawn by this project: no patient, no lesion, no medical meaning.",
    }
