"""How anything runs, fails and writes. Nothing here decides a number, so that no stage has it as a dep."""
