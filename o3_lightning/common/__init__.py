"""What every other package builds on: errors for people, atomic files, YAML, seeds."""
