"""Everything between prepared images and a checkpoint."""
