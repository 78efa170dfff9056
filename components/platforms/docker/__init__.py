"""Docker platform: an environment on one engine."""
