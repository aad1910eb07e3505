"""The ``s4net`` command: one module a sub-command, no logic of its own.

What loads PyTorch, OpenCV, SciPy, Matplotlib or rosbags is imported in the functions that work with it, after the
settings are read: ``--help`` and a mistyped option must not wait for it. A removal comes after these imports.
"""
