"""The command `mergeplan`, also as `python -m mergeplan`."""

from mergeplan.cli import main

if __name__ == "__main__":
    main()
