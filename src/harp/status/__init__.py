"""How HaRP is doing, for operators.

`conditions` says what each part reports, `engines` what is known of every engine; `pages` writes them as text or
JSON, and `admin` is the listener that serves the pages.
"""
