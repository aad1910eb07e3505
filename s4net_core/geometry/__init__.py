"""Where a pixel of one view lies in another one, and when which frame was taken from where."""
