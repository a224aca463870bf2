# `just` is on PyPI as rust-just. Each verb is one line over a script that also works without it.

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

# list the verbs
default:
    @just --list --unsorted

# set everything up and run it: DNS on 127.0.0.1:5335, the page on http://127.0.0.1:8053
up *arguments:
    ci/up {{ arguments }}

# set everything up and run the tests; `just test NAME` runs those whose name holds NAME
test k="":
    ci/test {{ if k == "" { "" } else { "-q -k '" + k + "'" } }}

# run what is set up already, without looking
run *arguments:
    nexoraldns run {{ arguments }}

# check the sample rules and run their tests
check path="rules.d":
    nexoraldns check --strict {{ path }}
    nexoraldns test {{ path }}

# what would change between two revisions, folders or tables
plan *arguments:
    nexoraldns plan {{ arguments }}

# generated files, rooms, lint and types, without the tests
lint:
    ci/generate-pxd --check
    lint-imports
    ruff check
    ruff format --diff --quiet . || true
    mypy

# put every file into its form
format:
    ruff check --fix-only --quiet
    ruff format

# write codes.pxd and layout.pxd, and compile what changed
compile:
    ci/generate-pxd
    ci/setup run

# what an answer costs: ours beside six others and a bare echo loop; `just bench --rounds 5 --save` keeps it
bench *arguments:
    ci/setup test
    bench/setup
    python bench/run.py {{ arguments }}

# the tables of the newest run again, and bench/RESULTS.svg
bench-report *arguments:
    python bench/report.py {{ arguments }}

# instructions for each packet on the query path, compared with bench/instructions.json; `--update` keeps them
bench-instructions *arguments:
    ci/setup test
    python bench/instructions.py {{ arguments }}

# random questions to ours and three other resolvers over a miniature Internet (as root): what differs, and why
compare *arguments:
    ci/setup test
    python ci/compare-resolvers {{ arguments }}

# random bytes and random rules against the parsers, for longer than the tests do
fuzz examples="20000":
    NEXORALDNS_FUZZ={{ examples }} python -m pytest -q --hypothesis-profile=fuzz -k "fuzz or any_input or property" tests

# run the Dockerfile's steps in an empty Debian made by debootstrap (as root)
docker-steps *arguments:
    ci/docker-steps {{ arguments }}

# the pages to read, in this order
docs:
    @ls README.md ARCHITECTURE.md schemas/*.md bench/README.md CHANGELOG.md

# new versions of the locked dependencies
lock *arguments:
    ci/lock {{ arguments }}
