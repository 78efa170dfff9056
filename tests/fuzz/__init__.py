"""Generated configurations, and a judge of the objects that the program renders from them (`make fuzz`)."""
