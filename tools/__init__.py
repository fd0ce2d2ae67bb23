"""What serves the repository: records, tables of the docs, the page of plots, checks of the cache."""

from skinlesion.base.errors import say_in_one_line

say_in_one_line()
