"""The status page, for people: server-rendered HTML that is readable without scripts, and live with them.

`site` finds what answers a request, `views` gathers what a page shows, `live` streams changes of it, `filters` writes
numbers for people; `templates/` are for Jinja2. `static/` has the style sheet, the script of ours and the libraries,
whose versions and hashes are in `static/VENDORED.md`. Loaded at the first visit.
"""
