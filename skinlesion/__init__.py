"""What the pipeline's stages share: importable, tested, and ignorant of DVC and of the order of the stages."""

import sys

from skinlesion.base.errors import say_in_one_line

if sys.argv[0] == "-m":  # a command that is starting; Python puts its path there once its package is imported
    say_in_one_line()
