"""Audits beside the main pipeline: the leak, near-duplicates, robustness, and images of another source."""
