"""For every test: property-based tests look at no clock, and in CI draw the same examples each time."""

import os

from hypothesis import settings

settings.register_profile("shared machine", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("shared machine")
