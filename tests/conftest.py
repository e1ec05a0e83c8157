"""How much hypothesis tries: as much as it does by itself, or 10 000 with `--hypothesis-profile=fuzz`."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("shared machine", deadline=None, derandomize="CI" in os.environ)
settings.register_profile(
    "fuzz", deadline=None, max_examples=10_000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")
