"""Where what the stages write lies, as far as it is not the subject of a module of its own."""

from pathlib import Path

MEMBERS = Path("models/members")
CLASSIFIER = Path("models/classifier")
METRICS = Path("metrics")
PLOTS = Path("plots")
