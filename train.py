"""Hands over to the command line of o3_lightning; `python train.py --help` lists what it can do."""

from o3_lightning.commands.cli import main

if __name__ == "__main__":
    main()
