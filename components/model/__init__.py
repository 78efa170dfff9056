"""Model: frozen dataclasses of services, workloads and routes, and the names and labels of the program's resources."""
