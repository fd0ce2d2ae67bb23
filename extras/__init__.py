"""Beside the pipeline: what shows, records and reports its results."""

from skinlesion.base.errors import say_interrupted_in_one_line

say_interrupted_in_one_line()
