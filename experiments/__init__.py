"""The research side of the reproduction: agents, prompters, and one script per job."""
