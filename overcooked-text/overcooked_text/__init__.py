"""Overcooked as text: macro-actions in a small kitchen, told in sentences. Importing it registers its tasks."""
