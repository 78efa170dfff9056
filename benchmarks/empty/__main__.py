"""Nothing: what a preview costs by itself."""
