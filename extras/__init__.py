"""Beside the pipeline: what shows, records and reports its results."""
