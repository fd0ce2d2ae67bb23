"""The report on a run: what is said (chapters of blocks), and how it becomes a page and a Markdown text."""
