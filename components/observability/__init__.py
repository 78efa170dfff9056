"""Monitoring: metrics exporters, recording rules, alerts and the dashboard."""
