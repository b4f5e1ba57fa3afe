"""``python -m segdata``: the same command line as the console script."""

from segdata.cli import main

if __name__ == "__main__":
    main()
