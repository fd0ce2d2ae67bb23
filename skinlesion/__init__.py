"""What the pipeline's stages share: importable, tested, and ignorant of DVC and of the order of the stages."""
