"""The classifier on images of another source."""
