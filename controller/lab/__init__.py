"""A miniature Internet to learn on: real name servers on loopback, signed zones, and zones broken on purpose."""
