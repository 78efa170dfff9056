"""Protection of data: find the resources that hold data, and refuse updates that would lose data."""
