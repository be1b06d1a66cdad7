"""The doctor where there are several Nextclouds: one report about all of them, or about one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from harp.status.doctor.doctor import Doctor
from harp.status.doctor.examined import Examined
from harp.status.doctor.report import DoctorReport, Finding, worst

AT_ONCE = 4  # Nextclouds that are examined at a time


class Doctors:
    """A doctor for each. `examined` says which there are now, by name; who has gone takes his doctor along."""

    def __init__(self, examined: Callable[[], Mapping[str, Examined]]) -> None:
        self._examined = examined
        self._doctors: dict[str, Doctor] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._last: DoctorReport | None = None

    @property
    def last(self) -> DoctorReport | None:
        """The last report about all, None before the first."""
        return self._last

    async def report(self, *, url: str = "", app: str = "", fresh: bool = False, instance: str = "") -> DoctorReport:
        """Return a report about one instance, or all. A URL and an ExApp are those of one. Raises KeyError."""
        self._doctors = {
            name: self._doctors.get(name) or Doctor(examined) for name, examined in self._examined().items()
        }
        if instance or len(self._doctors) == 1:
            name = instance or next(iter(self._doctors))
            report = await self._doctors[name].report(url=url, app=app, fresh=fresh)
            if len(self._doctors) == 1:
                self._last = report
            return report
        began, doctors = time.monotonic(), list(self._doctors.items())
        reports = await asyncio.gather(*(self._limited(doctor, fresh=fresh) for _, doctor in doctors))
        findings = merged([(name, report.findings) for (name, _), report in zip(doctors, reports, strict=True)])
        urls = ", ".join(report.public_url for report in reports)
        seconds = time.monotonic() - began
        self._last = DoctorReport(time.time(), seconds, reports[0].version, urls, worst(findings), findings)
        return self._last

    async def _limited(self, doctor: Doctor, *, fresh: bool) -> DoctorReport:
        async with self._places:
            return await doctor.report(fresh=fresh)


def merged(parts: Sequence[tuple[str, Sequence[Finding]]]) -> tuple[Finding, ...]:
    """Return all findings: once what all have found alike, the rest with the name of the instance."""
    first = parts[0][1]
    common = [one for one in first if all(one in findings for _, findings in parts)]
    named = [
        replace(one, check=f"{name}:{one.check}", title=f"{name}: {one.title}")
        for name, findings in parts
        for one in findings
        if one not in common
    ]
    return (*common, *named)
