"""`python -m api`."""

from skinlesion.base.errors import run_stage, say_in_one_line

if __name__ == "__main__":
    say_in_one_line()
    from api.server import main

    run_stage(main)
