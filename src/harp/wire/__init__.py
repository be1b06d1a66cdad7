"""Protocols, without clock, socket, log or waiting: bytes in, events out, and the other way round.

HTTP/1 from the server's side (`server_connection`, `requests`) and the client's (`requester`, `responses`), its
bodies (`chunked`) and what is changed on the way (`forwarding`); frp's messages and ciphers, yamux, WebSocket frames,
tar.
"""
