"""Colour and depth: as bytes of a message (`codec`) and as files (`files`)."""
