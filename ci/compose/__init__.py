"""From a Compose file to an application of ours: `python -m ci.compose` (`make import`)."""
