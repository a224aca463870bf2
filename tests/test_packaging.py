"""The project as it is installed: locks, generated files, data that travels, the build without a compiler."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import types
import zipfile

import pytest

from controller import resources

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _generator() -> types.ModuleType:
    spec = importlib.util.spec_from_loader("generate_pxd", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(ROOT / "ci" / "generate-pxd")
    exec((ROOT / "ci" / "generate-pxd").read_text(encoding="utf-8"), module.__dict__)
    return module


def _pinned(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+)", text, re.MULTILINE))


def _copy(target: pathlib.Path) -> pathlib.Path:
    """The project's tracked kind of files, without what was built in the tree but Cython's C: to write it takes long."""
    ignore = shutil.ignore_patterns(
        "*.so", "__pycache__", "*.c", ".git", ".venv", "build", "*.egg-info", ".nexoraldns", ".*_cache", "out", "tests"
    )
    shutil.copytree(ROOT, target, ignore=ignore)
    if (ROOT / "build/cython").is_dir():
        shutil.copytree(ROOT / "build/cython", target / "build/cython")
    return target


def _wheel(project: pathlib.Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Build a wheel without a network; returns the run and the names in the wheel."""
    out = project / "dist"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NEXORALDNS_")}
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-v",
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(out),
            str(project),
        ],
        env=environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(out.glob("*.whl")) if out.is_dir() else []
    return ran, zipfile.ZipFile(wheels[0]).namelist() if wheels else []


def test_generated_pxd_files_are_current() -> None:
    """codes.pxd and layout.pxd say what codes.py and layout.py say."""
    ran = subprocess.run([sys.executable, str(ROOT / "ci/generate-pxd"), "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_generator_refuses_what_is_not_a_constant() -> None:
    """A constant that does not fit a C int, or a line that is no constant, is refused with its line."""
    generator = _generator()
    text = "# --- generated into x.pxd from here -\n{}\n# --- generated into x.pxd up to here -\n"
    assert generator.constants(text.format("A = 8\nB = A * 4 + 1"), "x") == [("A", 8), ("B", 33)]
    for bad in ("A = 2**31", "A = 'text'", "import os", "A = len('x')", "A = True"):
        with pytest.raises(generator.Refused):
            generator.constants(text.format(bad), "x")
    with pytest.raises(generator.Refused):
        generator.constants("A = 1\n", "x")


def test_lock_files_pin_every_dependency_with_hashes() -> None:
    """Every requirement of pyproject.toml is pinned in requirements.lock, with at least one hash each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in ("test", "lint", "build"):
        wanted += project["optional-dependencies"][extra]
    pinned = _pinned("requirements.lock")
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9-]+", requirement)
        assert name is not None
        assert name[0].lower() in pinned, f"{requirement} is not locked: run ci/lock"
    for lock in ("requirements.lock", "requirements-run.lock"):
        for block in re.split(r"^(?=[a-z0-9.-]+==)", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_what_runs_is_what_was_tested() -> None:
    """The lock for running has the same versions as the lock for testing."""
    everything = _pinned("requirements.lock")
    running = _pinned("requirements-run.lock")
    assert running
    assert running.items() <= everything.items()
    assert "pytest" not in running


def test_resources_are_found_in_a_checkout() -> None:
    """The schemas and the sample rules are found, and a missing one is named."""
    assert resources.path("schemas").is_dir()
    assert resources.path("rules.d", "people.yaml").is_file()
    with pytest.raises(FileNotFoundError, match="no-such"):
        resources.path("schemas", "no-such.json")


def test_every_compiled_module_is_listed_for_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A .pxd beside a .py makes a compiled module, the pure enumerations do not."""
    pxds = {path.with_suffix(".py") for path in (ROOT / "dnsd").rglob("*.pxd") if path.stem not in ("codes", "layout")}
    script = (
        "import runpy, setuptools; setuptools.setup = lambda **k: None; "
        "print(*runpy.run_path('setup.py')['sources'](), sep='\\n')"
    )
    environ = os.environ | {"NEXORALDNS_NO_COMPILE": "1", "NEXORALDNS_REQUIRE_COMPILED": ""}
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    listed = ran.stdout.split()
    assert {str(path.relative_to(ROOT)) for path in pxds if path.is_file()} <= set(listed)
    assert not {name for name in listed if name.endswith(("codes.py", "layout.py"))}


def test_wheel_without_a_compiler(tmp_path: pathlib.Path) -> None:
    """Without a compiler the wheel is built from plain Python, says so in one line, and carries its data."""
    project = _copy(tmp_path / "project")
    ran, names = _wheel(project, CC="/nonexistent/cc")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    said = [line for line in (ran.stdout + ran.stderr).splitlines() if "no compiled modules" in line]
    assert len(said) == 1, ran.stdout
    assert not [name for name in names if name.endswith(".so")]
    assert "controller/_data/rules.d/people.yaml" in names
    assert "controller/_data/rules.d/lists/ads.hosts" in names
    for schema in (ROOT / "schemas").glob("*.json"):
        assert f"controller/_data/schemas/{schema.name}" in names
    for kind in ("templates", "static"):
        for path in (ROOT / "controller/status" / kind).glob("*"):
            assert str(path.relative_to(ROOT)) in names
    assert [name for name in names if name.endswith("entry_points.txt")]


def test_required_compiled_modules_fail_the_build(tmp_path: pathlib.Path) -> None:
    """NEXORALDNS_REQUIRE_COMPILED=1 turns the missing compiler into an error."""
    project = _copy(tmp_path / "project")
    ran, names = _wheel(project, CC="/nonexistent/cc", NEXORALDNS_REQUIRE_COMPILED="1")
    assert ran.returncode != 0
    assert not names
    assert "makes this an error" in ran.stdout + ran.stderr


def test_scripts_are_plain_posix_shell() -> None:
    """The scripts that a fresh machine runs are read by its /bin/sh."""
    for name in ("up", "test", "setup", "lock"):
        ran = subprocess.run(["sh", "-n", str(ROOT / "ci" / name)], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert os.access(ROOT / "ci" / name, os.X_OK)
