"""Empty Pulumi program. Its preview is the shortest possible preview."""
