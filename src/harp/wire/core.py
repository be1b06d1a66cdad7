"""What cuts ordinary heads: the compiled `harp_core` where it is installed, else `harp.wire.ordinary`, its equal."""

from __future__ import annotations

try:
    from harp_core import RequestCutter, cut_path, cut_response
except ImportError:
    from harp.wire.ordinary import RequestCutter, cut_path, cut_response  # type: ignore[assignment]

__all__ = ["RequestCutter", "cut_path", "cut_response"]
