"""Configurations that a generator makes, and a judge of the objects that the program renders of them (`make fuzz`)."""
