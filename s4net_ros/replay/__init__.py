"""What ``s4net play`` and ``s4net live`` are made of: a bag player, processes, a monitor and its report."""
