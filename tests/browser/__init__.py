"""The demo as its users meet it: in a headless Chromium, on a laptop's width and on a phone's."""
