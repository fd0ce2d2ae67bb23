"""How good predictions are, with intervals."""
