"""Sockets, names and time: all that touches the network, whatever protocol is spoken on it.

`listen` and `entrance` accept, `dial`, `race` and `resolve` connect, `ports` is the table of tunnels, `certificates`
are those of the tunnel; `deadlines`, `turns` and `tasks` share out time.
"""
