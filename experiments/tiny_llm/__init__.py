"""Tiny language models made on the spot, without network: stand-ins for a pretrained Flan-T5 in the demo and tests."""
