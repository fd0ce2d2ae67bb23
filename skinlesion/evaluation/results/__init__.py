"""Files of results: predictions, and the decisions made from them."""
