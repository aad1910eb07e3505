"""Parts of the node that maps: the thread that labels and fuses keyframes, the outputs and the services."""
