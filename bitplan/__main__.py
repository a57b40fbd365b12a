"""`python -m bitplan` is the command `optimize`."""

from bitplan.cli import main

if __name__ == "__main__":
    main()
