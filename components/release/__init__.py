"""Releases: state of a stack before an update, plan of the update, and journal of switches."""
