"""Processes and sockets: supervisor, agent, workers, listeners, upstream sockets, telemetry."""
