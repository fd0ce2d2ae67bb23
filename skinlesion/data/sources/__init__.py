"""Where the images come from: one module a server, and what they share to bring any layout to that of `data/raw`."""
