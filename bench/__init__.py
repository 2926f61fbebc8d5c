"""What this project claims about speed, memory and precision, measured; each module's docstring has its command."""
