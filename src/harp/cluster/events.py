"""What members tell each other of one Nextcloud besides tunnels: strikes, lifted bans, records of ExApps, and the
doctor's walks."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from harp.cluster.links import Link
from harp.errors import PeerError
from harp.nextcloud.banning import Banning
from harp.nextcloud.instance import Instance
from harp.policy.exapp import ExApp
from harp.wire.decoding import decoded
from harp.wire.member import Lifted, RecordGone, RecordPut, Struck, Told, WalkBegun, WalkEnded

MOST_STRUCK = 8192  # addresses whose strikes are sent to a new member

Tell = Callable[[Told], None]


class Events:
    """Takes what others tell, and tells them what happens here: BanNews, RecordNews and WalkNews of an Instance."""

    def __init__(self, name: str, banning: Banning, instance: Instance | None, tell: Tell) -> None:
        """Without an `instance` there are bans alone."""
        self._name = name
        self._banning = banning
        self._instance = instance
        self._tell = tell
        banning.news = self
        if instance is not None:
            instance.news = instance.walks.news = self

    def greet(self, link: Link) -> None:
        """Tell a member what it cannot find out itself."""
        for one in self._banning.list.latest(MOST_STRUCK):
            link.tell(Struck(one.address, one.reason, one.factor, one.ages, again=True, instance=self._name))

    def heard(self, message: Told) -> bool:
        """Take what is for us; False if nothing is."""
        match message:
            case Struck():
                self._banning.take(message.address, message.reason, message.factor, message.ages, again=message.again)
            case Lifted():
                self._banning.forgive(message.address)
            case RecordPut() if self._instance is not None:
                self._instance.take(decoded(bytes(message.record), ExApp, _wrong))
            case RecordGone() if self._instance is not None:
                self._instance.drop(message.app_id)
            case WalkBegun() if self._instance is not None:
                self._instance.walks.expect(message.nonce)
            case WalkEnded() if self._instance is not None:
                self._instance.walks.forget(message.nonce)
            case _:
                return False
        return True

    # What happens here

    def struck(self, address: str, reason: str, factor: int) -> None:
        """As BanNews."""
        self._tell(Struck(address, reason, factor, instance=self._name))

    def lifted(self, address: str) -> None:
        """As BanNews."""
        self._tell(Lifted(address, instance=self._name))

    def record_put(self, record: ExApp) -> None:
        """As RecordNews."""
        self._tell(RecordPut(msgspec.Raw(msgspec.json.encode(record)), instance=self._name))

    def record_gone(self, app_id: str) -> None:
        """As RecordNews."""
        self._tell(RecordGone(app_id, instance=self._name))

    def walk_begun(self, nonce: str) -> None:
        """As WalkNews."""
        self._tell(WalkBegun(nonce, instance=self._name))

    def walk_ended(self, nonce: str) -> None:
        """As WalkNews."""
        self._tell(WalkEnded(nonce, instance=self._name))


def _wrong(error: Exception) -> PeerError:
    return PeerError(f"link: not an ExApp's record ({type(error).__name__})")
