"""The ``s4net`` command: one module a sub-command, no logic of its own."""
