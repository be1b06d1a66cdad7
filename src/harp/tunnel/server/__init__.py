"""The side that accepts tunnels: connections until they log in, tunnels, what they claim."""
