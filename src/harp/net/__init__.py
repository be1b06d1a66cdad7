"""Sockets, names and time: everything that touches the network, for any protocol.

`listen` and `entrance` accept, `dial`, `race` and `resolve` connect, `ports` is the table of tunnels, `certificates`
are those of the tunnel; `deadlines`, `turns` and `tasks` manage time.
"""
