"""The whole unit suite is to stay under ten seconds: properties are tried with fewer examples than hypothesis would."""

from hypothesis import settings

settings.register_profile("quick", max_examples=50, deadline=None)
settings.load_profile("quick")
