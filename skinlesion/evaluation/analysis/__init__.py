"""What is decided from predictions, and whom it works for."""
