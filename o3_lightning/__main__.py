"""Runs the command line: `python -m o3_lightning`."""

from o3_lightning.commands.cli import main

if __name__ == "__main__":
    main()
