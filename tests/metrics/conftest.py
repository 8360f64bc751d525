"""The metrics' property tests have no time limit an example: a busy machine is not a wrong value."""

from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
