"""Drills: the pipeline is broken on purpose, and must say what is wrong, leave nothing half-written, and go on afterwards."""
