"""What is wrong, why, and what to do about it: `harp doctor`, the page and /api/v1/doctor show the same report.

`report` is what is found, `walk` goes through the public URL as a browser does and `roads` judges how its steps have
arrived; `inside` looks at what HaRP knows, `peers` asks Nextcloud, engines and ExApps; `doctor` puts it together.
"""
