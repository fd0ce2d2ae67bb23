"""The stages of the main chain, as dvc.lock names them."""

from __future__ import annotations

STAGES: tuple[str, ...] = (
    *("download", "split", "prepare", "synthesize", "train@base-0", "assemble", "evaluate", "threshold-sweep", "baselines"),
    *("selective", "subgroups", "failures", "gradcam", "neighbors", "report"),
)
