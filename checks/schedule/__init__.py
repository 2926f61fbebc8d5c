"""When checks run, and how long their results stay fresh."""
