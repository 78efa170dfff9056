"""Import of a Compose file as an application: `python -m ci.compose` (`make import`)."""
