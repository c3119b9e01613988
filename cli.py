"""`python cli.py …` runs cspprof from a checkout."""

from cspprof.__main__ import run

if __name__ == "__main__":
    run()
