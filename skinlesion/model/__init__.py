"""The network, and the classifier that is saved and loaded."""
