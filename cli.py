"""`python cli.py …` runs cspprof from a checkout."""

from cspprof.cli import main

if __name__ == "__main__":
    main()
