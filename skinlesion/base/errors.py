"""Errors that a user can act on, and how a stage turns them into one message and a non-zero exit."""

import difflib
import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

Known = TypeVar("Known", bound=str)

LONGEST_NAME = 200  # characters of a name in a message


class PipelineError(Exception):
    """Something is wrong with the input, the parameters or the machine; the message names it, its cause and the way out."""


def name_some(offenders: Iterable[object], most: int = 5) -> str:
    """Join the first `most` offenders for a message, each cut where it is long, and say how many more there are."""
    names = [_cut(str(name), LONGEST_NAME) for name in offenders]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def brief(value: object, most: int = LONGEST_NAME) -> str:
    """A value for a message, cut where it is long: what is wrong with it shows at its beginning."""
    return _cut(repr(value), most)


def reason_of(error: Exception, most: int = LONGEST_NAME) -> str:
    """What a library says of a file, for a message: its first line, cut where it is long, or the error's name if it is silent."""
    return _cut(str(error).strip().partition("\n")[0] or type(error).__name__, most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def describe_os_error(error: OSError) -> str:
    """One sentence for an operating-system error: what failed, on which file, and the way out where it is known."""
    place = f" at {error.filename}" if error.filename else ""
    ways_out = {
        errno.ENOSPC: "free some space and run the same command again; nothing half-written is left behind",
        errno.EDQUOT: "free some of the quota and run the same command again; nothing half-written is left behind",
        errno.EACCES: "check the permissions of the folder",
        errno.EPERM: "check the permissions of the folder",
        errno.EROFS: "the file system is read-only; use a workspace that can be written",
        errno.ENOENT: "run the stage that writes it first, or `dvc repro`",
    }
    way_out = ways_out.get(error.errno or 0, "see the system's message")
    return f"{error.strerror or error}{place}: {way_out}"


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`, log to stderr, and exit 1 with one clear message on an error that a user can act on."""
    collect_garbage()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with _unwinding_on_sigterm():
            main()
    except PipelineError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {describe_os_error(error)}")
    except (MemoryError, RuntimeError) as error:  # torch's for its devices is a RuntimeError
        if isinstance(error, RuntimeError) and "out of memory" not in str(error):
            raise
        sys.exit(f"error: out of memory ({str(error).partition(chr(10))[0]}): lower batch_size of this stage, or prepare.size")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def import_faster() -> None:
    """Where `python -m` starts the process, put off the search for garbage until `collect_garbage`.

    Imports make a million objects and no garbage; looking for some takes a fifth of their time, half a second with torch.
    """
    if sys.argv[0] == "-m":  # which Python replaces by the module's path once the module's package is imported
        gc.disable()


def collect_garbage() -> None:
    """End what `import_faster` began; what is there by now stays to the end, and is never looked through."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def say_in_one_line() -> None:
    """Say in one line what ends a command before `run_stage`: Ctrl-C during imports, or a Python without the packages."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
        elif isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name and not Path(error.name).is_dir():
            way_out = "activate the environment that `make run` made (. .venv/bin/activate)"
            sys.stderr.write(f"error: {error} in {sys.executable}: {way_out}\n")
        else:
            before(kind, error, traceback)

    sys.excepthook = hook


@contextmanager
def _unwinding_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that temporary files go; by default it ends a process on the spot."""
    own = os.getpid()

    def unwind(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # forked from this one, as loading processes are: the files are not its own
            os._exit(128 + number)
        # Nothing may cut the unwinding short: not a second signal, and not torch, whose own handler raises when a loading process
        # ends, as all of them do where the whole group was told to. (By a handler that does nothing: of a signal that came before
        # SIG_IGN was set, Python would complain in a traceback.)
        for ended in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(ended, lambda number, frame: None)
        sys.exit("terminated")

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_known(kind: str, name: str, known: Iterable[Known]) -> Known:
    """The one of `known` that is called `name`.

    kind : what it is, for the message.

    Raises
    ------
    PipelineError
        There is none; the message has the nearest name and all of them.
    """
    names = list(known)
    for each in names:
        if each == name:
            return each
    raise PipelineError(f"no {kind} '{name}'{suggest(name, names)}; known: {', '.join(names)}")


def suggest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...' for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
