"""What this machine has and lacks for s4net, and what to do about what it lacks."""
