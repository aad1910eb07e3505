"""Examines this machine for ``s4net doctor``: what s4net needs, what is there, and how to get the rest."""
