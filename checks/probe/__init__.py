"""How one check is made: names, sockets, TLS, HTTP, and the failure in words."""
