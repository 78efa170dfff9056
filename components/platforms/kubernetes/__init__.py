"""Kubernetes platform: an environment in one namespace of a cluster."""
