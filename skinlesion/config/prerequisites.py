"""What params name and no stage writes: files, packages, a compiler. `download` looks for all of it before it begins."""

import os
import shutil
from importlib.util import find_spec

from skinlesion.base.errors import PipelineError, suggest
from skinlesion.base.files import resolve_from_root
from skinlesion.config.params import Params
from skinlesion.config.training import TrainParams

COMPILERS = ("g++", "c++", "clang++", "gcc", "cc", "clang", "cl")  # one of which torch.compile calls, by the device


def check_prerequisites(params: Params) -> None:
    """Prove that no stage will stop, after a download of hours, for something that could be known before.

    Raises
    ------
    PipelineError
        A file that params name, a package or a compiler that they need is not there; all of them in one message.
    """
    problems = [problem for name in params.ensemble.members for problem in _problems_of(params.member(name))]
    if params.split.links is not None and not resolve_from_root(params.split.links).is_file():
        problems.append(f"split.links: {params.split.links} not found: correct the path, or set split.links to null")
    if problems:
        raise PipelineError("\n  ".join(["params.yaml asks for what is not there:", *dict.fromkeys(problems)]))


def _problems_of(train: TrainParams) -> list[str]:
    problems = [describe_missing_logger(name) for name in train.loggers if find_spec(name) is None]
    if problem := find_weights_problem(train.weights):
        problems.append(problem)
    if train.compile and not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
        problems.append("train.compile needs a C++ compiler, and there is none: install g++, or set train.compile=false")
    return problems


def find_weights_problem(weights: str) -> str | None:
    """What is wrong with a value of `train.weights` that names no file, if it does not."""
    if weights in ("none", "imagenet") or resolve_from_root(weights).is_file():
        return None
    near = suggest(weights.lower(), ("none", "imagenet"))
    return (
        f"train.weights: no file {resolve_from_root(weights)} (a relative path starts at the project's root){near}; or use none, "
        "imagenet, or download the file"
    )


def describe_missing_logger(name: str) -> str:
    """What to say where the package of a logger of `train.loggers`, which has the logger's name, is not installed."""
    requirements = "requirements.txt" if name == "dvclive" else "requirements/loggers.txt"
    return (
        f"train.loggers names {name}, and the package {name} is not installed: pip install -r {requirements}, or leave {name} "
        "out of train.loggers"
    )
