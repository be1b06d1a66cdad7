"""What several commands take as arguments."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from harp.errors import HarpError

if TYPE_CHECKING:
    from harp.settings import Settings


def reads(parser: argparse.ArgumentParser, *names: str, text: str = "") -> None:
    """Name the variables that a command reads, in its help."""
    parser.epilog = f"{text}Variables: {', '.join(names)}."


def asks_harp(parser: argparse.ArgumentParser) -> None:
    """Say in a command's help whom it asks."""
    where = "It asks the HaRP that runs on this host (in a container: docker exec appapi-harp harp ...). "
    reads(parser, "HP_ADMIN_ADDRESS (default: 127.0.0.1:8200)", text=where)


def port(text: str) -> int:
    """Read a port number, 0 included."""
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def add_instance(parser: argparse.ArgumentParser, what: str = "show those of one Nextcloud only") -> None:
    """Add the option that chooses one of several Nextclouds."""
    parser.add_argument("--instance", default="", metavar="NAME", help=f"{what}, by its name in HP_INSTANCES_FILE")


def chosen(instance: str, *, needed: bool = False) -> Settings:
    """Return the settings of the environment, of that instance where it is named. Raises HarpError.

    `needed`: what is to be done can only be done for one Nextcloud.
    """
    from harp.settings import load  # noqa: PLC0415 - quick commands have no use for it

    settings = load(os.environ)
    if not instance and not (needed and settings.instances):
        return settings
    names = [one.instance for one in settings.instances]
    if instance in names:
        return settings.instances[names.index(instance)]
    if not names:
        raise HarpError(f"HP_INSTANCES_FILE is not set: there is one Nextcloud, not named {instance}")
    wrong = f"there is no instance {instance}" if instance else "this is done for one Nextcloud: add --instance NAME"
    raise HarpError(f"{wrong}; HP_INSTANCES_FILE has {', '.join(names)}")
