"""Properties of whatever a user can hand in: it works, or one message names what is wrong with it. No traceback, ever.

`test_properties.py` tries a few derandomised examples of each in seconds, `tests/drills/test_properties.py` thousands.
"""
