"""The configuration: environment variables in, a frozen Config out."""
