"""The predictor that the page uses, opened once for everybody, and again after a training."""

from dataclasses import dataclass
from pathlib import Path

from skinlesion.artifacts.paths import CLASSIFIER, METRICS
from skinlesion.config.evaluation import CamMethod
from skinlesion.evaluation.results.decisions import CALIBRATION, CONFORMAL, OPERATING_POINTS
from skinlesion.model.classifier import read_member_names
from skinlesion.serving.engines import PRECISION_OF, Engine
from skinlesion.serving.export.onnx_network import EXPORT, MODEL_FILES
from skinlesion.serving.predictor import ENSEMBLE, Predictor, load_predictor

READ = (CLASSIFIER, EXPORT, CALIBRATION, OPERATING_POINTS, CONFORMAL, METRICS / "evaluate.json", METRICS / "threshold_sweep.json")


@dataclass(frozen=True)
class Opened:
    """A predictor; the methods that can explain it; and `key`, which another training, model or engine changes."""

    predictor: Predictor
    methods: tuple[CamMethod, ...]
    key: str


def stamp(root: Path = Path()) -> str:
    """What changes when a file that the predictor reads does: names, sizes and times of them."""
    files = [file for name in READ for file in ([root / name] if (root / name).is_file() else sorted((root / name).rglob("*")))]
    facts = [(str(file), file.stat()) for file in files if file.is_file()]
    return repr([(name, at.st_size, at.st_mtime_ns) for name, at in facts])


def open_predictor(root: Path, model: str, engine: str, stamped: str) -> Opened:
    """Load a predictor, networks for maps included, so that both are of one training.

    Raises
    ------
    PipelineError
        As `load_predictor`.
    """
    predictor = load_predictor(root, model=model, engine=engine)
    return Opened(predictor, predictor.usable_methods(), repr((model, engine, stamped)))


def list_models(root: Path = Path()) -> list[str]:
    """What can be chosen: the ensemble and, where it has several, its members; the only member is the ensemble.

    Raises
    ------
    PipelineError
        There is no trained classifier (`load_predictor` says so), or the list of its members is damaged.
    """
    if not (root / CLASSIFIER).is_dir():
        load_predictor(root)  # which knows what to say
    names = read_member_names(root / CLASSIFIER)
    return [ENSEMBLE, *(names if len(names) > 1 else [])]


def list_engines(root: Path = Path()) -> list[Engine]:
    """What can run the networks: torch, and what the optional stage `export` wrote for every member."""
    names = read_member_names(root / CLASSIFIER)
    exported: list[Engine] = [
        engine
        for engine, precision in PRECISION_OF.items()
        if all((root / EXPORT / name / MODEL_FILES[precision]).is_file() for name in names)
    ]
    return ["torch", *exported]
