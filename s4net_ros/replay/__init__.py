"""Parts of ``s4net play`` and ``s4net live``: a bag player, child processes, a monitor and its report."""
