"""What a trained classifier is, for who meets it outside the pipeline: its origin, its data and its figures on test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skinlesion.artifacts.paths import METRICS
from skinlesion.base.files import read_json
from skinlesion.config.contents import Named
from skinlesion.evaluation.metrics.classification import LEADING
from skinlesion.evaluation.results.decisions import CLASSIFIER_SHA256
from skinlesion.model.classifier import ClassifierConfig

OF_MEMBER = ("name", "backbone", "epoch", "weights_sha256", "git_commit")
SHARED = ("size", "fit", "color_constancy", "fingerprint", "images_sha256")


def describe_model(configs: Sequence[ClassifierConfig], *, measured: dict[str, Any] | None) -> dict[str, Any]:
    """The model card, as JSON.

    configs : of the members that are used. measured : what they reach on test, of one of the functions below.
    """
    first = configs[0]
    return {
        "members": [{key: getattr(config, key) for key in OF_MEMBER} for config in configs],
        "classes": list(first.classes),
        **{key: getattr(first, key) for key in SHARED},
        "needs_metadata": any(config.needs_metadata for config in configs),
        "data": dict(first.data),
        "versions": dict(first.versions),
        "test": measured,
    }


def measured_on_test(root: Path, digest: str) -> dict[str, Any] | None:
    """Headline metrics with intervals from a workspace's metrics/evaluate.json; None where it isn't there or of another run.

    digest : of the classifier (`identity.classifier_digest`). The metrics are in git and the classifier is not,
    so that a switch of branches parts them.
    """
    content = _read_of(root / METRICS / "evaluate.json", digest)
    if content is None:
        return None
    test = content["test"]
    figures = {name: {"value": test[name], **test["intervals"][name]} for name in LEADING}
    return _describe(test, content, figures)


def measured_in_eight_bits(root: Path, digest: str) -> dict[str, Any] | None:
    """The same of the int8 export, from metrics/export.json."""
    content = _read_of(root / METRICS / "export.json", digest)
    if content is None:
        return None
    return _describe(content, content, {name: dict(content["compared"]["int8"][name]) for name in LEADING})


def _read_of(path: Path, digest: str) -> Named | None:
    """Metrics of a classifier; None where there are none of it."""
    content = Named(read_json(path), str(path)) if path.is_file() else None
    return content if content is not None and content.get(CLASSIFIER_SHA256) == digest else None


def _describe(counted: dict[str, Any], content: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    confidence = content["bootstrap"]["confidence"]
    return {"images": counted["images"], "lesions": counted["lesions"], "confidence": confidence, **figures}
