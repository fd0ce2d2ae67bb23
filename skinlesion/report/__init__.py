"""The report on a run: what is said (a list of sections of blocks), and how it becomes a page and a Markdown text."""
