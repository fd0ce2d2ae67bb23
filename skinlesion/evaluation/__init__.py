"""From predictions to decisions: inference, metrics, results files, and what is decided from them."""
