"""Tiny language models made on the spot, without network: the demo's stand-in for a pretrained Flan-T5, and the tests' LLM."""
