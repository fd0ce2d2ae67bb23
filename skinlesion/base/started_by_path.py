"""Say how a command is started whose file was started by its path: Python then looks for our packages beside that file alone.

There it finds, in place of the package, a module of the package's name, which runs this file.
"""

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
given = getattr(sys.modules["__main__"], "__file__", None) or ""
started = Path(given).resolve()
if started.suffix != ".py" or ROOT not in started.parents:
    raise ModuleNotFoundError(f"the packages of this project are found from its root alone: start Python in {ROOT}")
module = ".".join(started.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
words = shlex.join(["python", "-m", module, *sys.argv[1:]])
place = "" if Path.cwd() == ROOT else f"cd {shlex.quote(str(ROOT))} && "
sys.exit(f"error: {given} is started as a module, from the root of the project: {place}{words}")
