"""The classifier over HTTP: `make api`, or `python -m api`. docs/serving.md says how it is set up. Not for clinical use."""
