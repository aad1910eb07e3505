"""What the adaptation node is made of: the threads that assemble frames and learn, its services and its outputs."""
