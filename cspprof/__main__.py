"""`python -m cspprof`."""

from cspprof.cli import main

main()
