"""Arithmetic on a GPU that is as exact as on a CPU."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_switching = threading.Lock()
_inside: list[object] = []  # who is within `full_float32` at present
_switched = ExitStack()


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions on a GPU in float32, and by the same algorithm every time; also a decorator.

    By its default torch rounds their inputs to TF32, of 10 bits, and what a GPU says would then differ from what a CPU says in
    the third digit. Matrix products are in float32 by default. The switch is the process's, not the thread's: it is thrown
    back when the last of those within has left.
    """
    me = object()
    with _switching:
        if not _inside:
            _switched.enter_context(
                torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            )
        _inside.append(me)
    try:
        yield
    finally:
        with _switching:
            _inside.remove(me)
            if not _inside:
                _switched.close()
