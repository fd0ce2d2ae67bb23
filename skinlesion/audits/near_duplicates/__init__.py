"""Pairs of images under two lesion ids that show one lesion."""
