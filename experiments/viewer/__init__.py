"""Played episodes as one self-contained HTML page."""
