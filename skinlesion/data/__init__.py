"""Getting, splitting and preparing images."""
