"""The classifier on corrupted images."""
