"""A small Kubernetes cluster on loopback: API server, Service, ingress and real agents."""
