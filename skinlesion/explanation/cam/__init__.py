"""Class activation maps: computed by torchcam, placed on the image, measured against the lesion, shown on pages."""
