"""For pip and for tools that look for this file; everything that it says stands in setup.cfg."""

from setuptools import setup

setup()
