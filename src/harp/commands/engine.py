"""`harp engine`: list, check, add and register the Docker engines of this HaRP (A 7.5)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harp.commands import engine_bundle, engine_list
from harp.commands.admin import settings_to_ask
from harp.commands.arguments import add_instance, chosen, port, reads


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    names = ("HP_ADMIN_ADDRESS", "HP_CERTS_DIR", "HP_DOCKER_ENGINE_PORTS", "HP_FRP_ADDRESS", "NC_INSTANCE_URL")
    reads(parser, "HP_SHARED_KEY", *names)
    add_instance(parser, "the engines of one Nextcloud")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    shown = actions.add_parser("list", help="show what the running HaRP knows about its engines")
    shown.add_argument("--json", action="store_true", help="print what the admin API answers (/api/v1/engines)")
    check = actions.add_parser("check", help="ask engines through the running HaRP, as AppAPI does")
    check.add_argument("--json", action="store_true", help="print the answers as JSON")
    check.add_argument("ports", type=port, nargs="*", metavar="PORT", help="engine ports (default: all known engines)")
    text = "give a remote engine a port and make a bundle with everything its host needs"
    add = actions.add_parser("add", help=text, description=f"{text[0].upper()}{text[1:]}.")
    _bundle_arguments(add)
    text = "as add, with another key: copies of the bundle that it had are worth nothing any more"
    rotate = actions.add_parser("rotate", help=text, description=f"{text[0].upper()}{text[1:]}.")
    _bundle_arguments(rotate)
    text = "forget an engine and end its tunnel"
    remove = actions.add_parser("remove", help=text, description=f"{text[0].upper()}{text[1:]}.")
    remove.add_argument("name", metavar="NAME", help="the name given to `harp engine add` or `register`")
    text = "reserve a port for an engine whose tunnel client you set up yourself"
    register = actions.add_parser("register", help=text, description=f"{text[0].upper()}{text[1:]}.")
    register.add_argument("name", metavar="NAME", help="the proxy name in the client's configuration")
    register.add_argument("--port", type=port, required=True, help="its engine port, remotePort in the configuration")


def _bundle_arguments(parser: argparse.ArgumentParser) -> None:
    text = "a name for the engine; adding it again makes its bundle again"
    parser.add_argument("name", metavar="NAME", help=text)
    parser.add_argument("--port", type=port, help="engine port (default: the first free one from 24001)")
    parser.add_argument(
        "--address", metavar="HOST[:PORT]", help="where the remote host reaches this HaRP's tunnel port"
    )
    parser.add_argument("--image", default="appapi-harp", help="HaRP's image on the remote host (default: appapi-harp)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--output", type=Path, metavar="DIRECTORY", help="write a new directory (default: ./NAME)")
    form.add_argument("--tar", dest="form", action="store_const", const="tar", help="print it as a tar archive")
    text = "print it as a shell command to paste"
    form.add_argument("--paste", dest="form", action="store_const", const="paste", help=text)


def main(options: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    if options.action == "list":
        return engine_list.show(settings_to_ask(options.instance), as_json=options.json)
    settings = chosen(options.instance, needed=True)
    match options.action:
        case "check":
            return engine_list.check(settings, options.ports, as_json=options.json)
        case "register":
            engine_bundle.register(settings, options.name, options.port)
            print(f"Port {options.port} belongs to the engine {options.name}.")
            return 0
        case "remove":
            print(f"{options.name} is no longer an engine of this HaRP. {engine_bundle.remove(settings, options.name)}")
            return 0
    fresh = options.action == "rotate"
    wish = engine_bundle.EngineWish(options.name, options.port, options.address, options.image, fresh)
    made = engine_bundle.add(settings, wish, options.output, options.form or "directory")
    if fresh:
        print(f"\n{engine_bundle.end_tunnel(settings, options.name)}", file=sys.stderr)
    return made
