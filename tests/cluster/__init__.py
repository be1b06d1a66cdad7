"""Members of one HaRP, linked."""
