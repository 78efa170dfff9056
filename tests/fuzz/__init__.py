"""Fuzz tests (`make fuzz`): a generator of configurations, and a judge that validates the rendered objects."""
