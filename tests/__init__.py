"""The tests: real sockets on loopback, in any order and in parallel."""
