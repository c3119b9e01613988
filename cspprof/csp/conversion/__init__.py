"""Conversion of a network: its stages become cross stage partial, from its own modules and its record."""
