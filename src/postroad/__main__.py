"""python -m postroad: the command `postroad`."""

from postroad.cli.app import main

if __name__ == "__main__":
    main()
