"""What a kubenurse agent knows how to do; each module is one thing and none imports ``kubenurse``."""

__version__ = "2.0.0"
