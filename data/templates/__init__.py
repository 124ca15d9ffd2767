"""What chat templates do besides writing turns: variables that they read, and thoughts."""
