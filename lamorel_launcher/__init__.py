"""Starts a script as RL and LLM processes, and watches over them: `python -m lamorel_launcher.launch`."""
