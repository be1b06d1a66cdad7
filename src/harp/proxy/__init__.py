"""From a decided request to the ExApp's answer, by callbacks.

`exchange` is the seam to the client's side, `forward` joins the two sides, `upstream` is one connection and
`upstreams` all of them; `listening` finds out whether anything answers behind a silent tunnel.
"""
