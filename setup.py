"""Build the compiled modules, and put schemas/ and rules.d/ into the package.

Every `.py` of dnsd/ and controller/ that has a `.pxd` beside it is ordinary Python that Cython also compiles; so is the
batch unit `dnsd/serve/_batch.pyx`. Without a C compiler the build succeeds with plain Python and says so in one line.

Environment: NEXORALDNS_NO_COMPILE=1 does not try; NEXORALDNS_REQUIRE_COMPILED=1 makes a failure an error;
NEXORALDNS_CFLAGS adds flags for the C compiler.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).resolve().parent
WRITTEN = pathlib.Path("build/cython")  # where Cython leaves its C
DATA = ("schemas", "rules.d")
# Enumerations that other modules cimport: data for Cython, nothing to compile.
ENUMERATIONS = {"codes", "layout"}
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": True,  # bytes from the network stay inside their buffers even where we are wrong
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
}
FLAGS = ["-g0", *os.environ.get("NEXORALDNS_CFLAGS", "").split()]  # -g0: a third less time in the compiler
NO_COMPILE = os.environ.get("NEXORALDNS_NO_COMPILE") == "1"
REQUIRED = os.environ.get("NEXORALDNS_REQUIRE_COMPILED") == "1"


def sources() -> list[pathlib.Path]:
    """The modules to compile, relative to the project's folder, in a fixed order."""
    found = [path.with_suffix(".py") for room in ("controller", "dnsd") for path in (ROOT / room).rglob("*.pxd")]
    found = [path for path in found if path.is_file() and path.stem not in ENUMERATIONS]
    found += (ROOT / "dnsd").rglob("*.pyx")
    return sorted(path.relative_to(ROOT) for path in found)


def flags(path: pathlib.Path) -> list[str]:
    """The compiler's flags: what answers from table and cache is worth the longest look, the rest a third less time."""
    return ["-O3" if path.parts[:2] in (("dnsd", "contract"), ("dnsd", "serve")) else "-O2", *FLAGS]


def say(reason: str) -> None:
    """The one line that tells that the query path will be interpreted; an error where compiling is required."""
    line = f"nexoraldns: no compiled modules ({reason}); the same Python files run interpreted, about 50 times slower"
    if REQUIRED:
        raise SystemExit(f"{line}. NEXORALDNS_REQUIRE_COMPILED=1 makes this an error")
    print(line, file=sys.stderr)


def extensions() -> list[Extension]:
    """Turn the modules into C; none when asked not to, or when Cython is not there."""
    if NO_COMPILE:
        say("NEXORALDNS_NO_COMPILE=1")
        return []
    try:
        from Cython.Build import cythonize
        from Cython.Compiler import Options
    except ImportError:
        say("Cython is not installed")
        return []
    # Every buffer here has one dimension (the compiler wants one more); room for eight makes a memoryview of 208
    # bytes, copied at each call.
    Options.buffer_max_dims = 2
    modules = [
        Extension(".".join(path.with_suffix("").parts), [str(path)], extra_compile_args=flags(path), depends=depends(path))
        for path in sources()
    ]
    made: list[Extension] = cythonize(
        modules, compiler_directives=DIRECTIVES, build_dir=str(WRITTEN), quiet=True, show_all_warnings=False,
        force=is_older(),
    )  # fmt: skip
    return made


def is_older() -> bool:
    """Whether some C was written before this file: modules that were compiled differently do not fit together."""
    here = pathlib.Path(__file__).stat().st_mtime
    return any(path.stat().st_mtime < here for path in (ROOT / WRITTEN).rglob("*.c"))


def depends(path: pathlib.Path) -> list[str]:
    """Headers beside a module: a change in one of them compiles it again."""
    return sorted(str(header.relative_to(ROOT)) for header in (ROOT / path).parent.glob("*.h"))


class BuildExtensions(build_ext):
    """Compile all or nothing: a half-compiled query path would be neither fast nor tested."""

    def run(self) -> None:
        """Build every extension; on failure leave none behind and go on with plain Python."""
        if not self.extensions:
            return
        self.parallel = os.cpu_count() or 1
        try:
            super().run()
        except Exception as error:
            self.remove()
            say(str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__)
            self.extensions = []

    def remove(self) -> None:
        """Take away what this run (or an earlier one) has compiled."""
        for extension in self.extensions:
            for path in (self.get_ext_fullpath(extension.name), str(ROOT / self.get_ext_filename(extension.name))):
                if os.path.exists(path):
                    os.unlink(path)

    def get_outputs(self) -> list[str]:
        """Only files that exist: a failed optional build has none."""
        return [path for path in super().get_outputs() if os.path.exists(path)] if self.extensions else []


class BuildPython(build_py):
    """Copy schemas/ and rules.d/ to controller/_data/ of the built package (an editable install reads them here)."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if not getattr(self, "editable_mode", False):
            for name in DATA:
                shutil.copytree(
                    ROOT / name, pathlib.Path(self.build_lib) / "controller" / "_data" / name, dirs_exist_ok=True
                )


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions, "build_py": BuildPython})
