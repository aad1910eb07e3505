"""Parts of the adaptation node: the threads that assemble frames and learn, the services and the outputs."""
