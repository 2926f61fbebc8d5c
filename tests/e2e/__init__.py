"""A cluster of network namespaces with real parts: agents, kube-proxy's rules, DNS, ingress and Prometheus."""
