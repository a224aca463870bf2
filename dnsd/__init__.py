"""NexoralDNS's data plane: the processes that answer DNS questions.

Rooms, from the pure to the impure: `contract` (what the bytes mean), `resolve` (how names
get resolved, sans-IO) and `serve` (processes and sockets). Nothing here imports `controller`.

The modules that have a `.pxd` file beside them are ordinary Python that is also compiled by
Cython. `NEXORALDNS_INTERPRETED=1` makes this process use their Python text even where compiled
modules exist, so that tests can hold the two against each other.
"""

import os
import sys

__version__ = "0.1.0"

if os.environ.get("NEXORALDNS_INTERPRETED") == "1":
    from collections.abc import Sequence
    from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader

    class _SourceOnly:
        """A path finder for `dnsd.*` that does not see compiled extension modules."""

        @classmethod
        def find_spec(cls, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
            """Find `name` as Python text, or not at all (the ordinary finders then go on)."""
            if not name.startswith("dnsd.") or path is None:
                return None
            for folder in path:
                spec = FileFinder(folder, (SourceFileLoader, [".py"])).find_spec(name)
                if spec is not None and spec.loader is not None:
                    return spec
            return None

    sys.meta_path.insert(0, _SourceOnly)
