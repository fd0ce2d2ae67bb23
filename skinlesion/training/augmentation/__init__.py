"""Random changes of training images: their presets, and how each is made."""
