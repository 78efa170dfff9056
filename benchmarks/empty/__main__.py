"""Empty Pulumi program, whose preview is the least that any preview takes."""
