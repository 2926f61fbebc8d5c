"""The Kubernetes API: credentials, lists and watches, and the neighbours they show."""
