"""The cockpit: a page for the browser that shows what the robot learns, and steers it."""
