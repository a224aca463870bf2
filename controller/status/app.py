"""The status page's web application (owner of Starlette and Jinja2).

It reads the state and never changes it: GET and HEAD only, no cookie, no external resource, a
Content-Security-Policy that refuses anything inline, and no answer under a name that is not ours: a stranger's page
whose name suddenly points here (DNS rebinding) would otherwise be read to with the browser's blessing.
"""

from __future__ import annotations

import datetime
import ipaddress
import pathlib
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.source import redact
from controller.status import metrics, view
from controller.status.way import Way, WayError, foreign, style_hash
from controller.status.why import Why
from dnsd.contract.settings import Settings

_HERE = pathlib.Path(__file__).parent
_LONGEST_INPUT = 300  # a domain name in presentation format with escapes is rarely longer; the page echoes it

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)  # fmt: skip


class State(Protocol):
    """What the page needs of the controller's state."""

    def snapshot(self) -> Mapping[str, Any]:
        """What is known now, as JSON values; the caller does not change it."""


# (name, type, client) as typed by a person → the lines of `explain`; raises ValueError with a sentence.
Explain = Callable[[str, str, str], str]
# (name, type) as typed → the way as SVG; raises WayError.
Trace = Callable[[str, str], Awaitable[str]]


def _known(host: str, names: Collection[str]) -> bool:
    """Whether a Host header (RFC 9110, section 7.2) names us: by an address, or by one of these names."""
    name = re.sub(r":[0-9]{0,5}\Z", "", host.strip())
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower().removesuffix(".") in names
    return True


def _own_names(settings: Settings | None) -> frozenset[str]:
    machine = {socket.gethostname()}
    machine |= {f"{name.partition('.')[0]}{end}" for name in machine for end in ("", ".local")}
    configured = settings.status.hosts if settings is not None else ()
    return frozenset(name.lower().removesuffix(".") for name in ("localhost", *machine, *configured))


class _Guard:
    """Every answer carries the security headers; what is not GET or HEAD, or meant for somebody else, is refused."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app = app
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                headers += [pair for pair in _HEADERS if pair[0] not in names]
                if b"cache-control" not in names:
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        if scope["method"] not in ("GET", "HEAD"):
            refusal = PlainTextResponse(
                "This page only shows what is; change the rules in their repository or folder.\n",
                status_code=405, headers={"allow": "GET, HEAD"},
            )  # fmt: skip
            await refusal(scope, receive, send_guarded)
            return
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        if host and not _known(host, self.names):
            refusal = PlainTextResponse(
                "This is not the page of that name; open it by its address, or add the name to status.hosts.\n",
                status_code=421,
            )  # fmt: skip
            await refusal(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"  # revalidated by ETag: an update shows at once
        return response


def _now() -> datetime.datetime:
    return datetime.datetime.now().astimezone()


def _dig(listen: tuple[str, ...]) -> str:
    """The dig command that reaches the first listen address from this machine."""
    if not listen:
        return "dig @127.0.0.1 example.com"
    host, _, port = listen[0].rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        host = "127.0.0.1" if address.is_unspecified else str(address)
    except ValueError:  # an interface, or every address
        host = "127.0.0.1"
    return f"dig @{host}{'' if port == '53' else f' -p {port}'} example.com"


def _source(settings: Settings | None) -> str:
    if settings is None:
        return "rules.d"
    git = settings.source.git
    return f"{redact(git.url)} ({git.ref}, {git.path})" if git else settings.source.directory or "rules.d"


def create(
    state: State, *, node_settings: Settings | None, explain: Explain | None = None, trace: Trace | None = None
) -> Starlette:
    """The application. `node_settings` is used for hints (where rules are, what to dig) and to find the live table.

    `explain` answers /explain; the live table does when it is None. `trace` answers /trace; a program of ours does when
    it is None, unless `status.trace` is false.
    """
    if trace is None and node_settings is not None and node_settings.status.trace:
        trace = Way(node_settings)
    if explain is None and node_settings is not None:
        explain = Why(node_settings)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals.update(
        source=_source(node_settings), dig=_dig(node_settings.listen if node_settings else ()),
        broker=node_settings.broker.listen if node_settings else "127.0.0.1:5338", can_explain=explain is not None,
        is_git=bool(node_settings and node_settings.source.git), can_trace=trace is not None,
    )  # fmt: skip
    render_metrics = metrics.exposition(state.snapshot)

    def render(template: str, **values: object) -> HTMLResponse:
        return HTMLResponse(environment.get_template(template).render(values))

    def wanted(request: Request) -> str:
        return request.query_params.get("q", "")[:_LONGEST_INPUT]

    async def page(request: Request) -> Response:
        return render("page.html", page=view.page(state.snapshot(), _now(), wanted(request)))

    async def live(request: Request) -> Response:
        return render("live.html", page=view.page(state.snapshot(), _now(), wanted(request)))

    async def explained(request: Request) -> Response:
        query = {key: request.query_params.get(key, "").strip()[:_LONGEST_INPUT] for key in ("name", "type", "client")}
        text, fault = "", ""
        if explain is None:
            fault = "this process has no rules to explain with; use `nexoraldns explain` on the command line"
        elif query["name"]:
            try:
                # In a thread: reading a large table takes longer than a heartbeat may wait.
                text = await run_in_threadpool(explain, query["name"], query["type"] or "A", query["client"])
            except ValueError as error:
                fault = str(error)
        response = render("explain.html", query=query, text=text, fault=fault)
        response.status_code = 400 if fault and explain else 200
        return response

    async def traced(request: Request) -> tuple[dict[str, str], str, str, int]:
        """What was asked, the picture or what is wrong, and HTTP's status."""
        query = {key: request.query_params.get(key, "").strip()[:_LONGEST_INPUT] for key in ("name", "type")}
        if trace is None:
            return query, "", "traces are switched off here (`status.trace`); use `nexoraldns trace`", 403
        if not query["name"] or request.method != "GET":
            return query, "", "", 200
        if foreign(request.headers):
            return query, "", "another site's page asked for this; press Trace if you want it", 403
        try:
            return query, await trace(query["name"], query["type"] or "A"), "", 200
        except WayError as error:
            return query, "", str(error), error.status

    async def way(request: Request) -> Response:
        query, picture, fault, code = await traced(request)
        response = render("trace.html", query=query, picture=picture, fault=fault)
        response.status_code = code
        if picture:
            response.headers["content-security-policy"] = _POLICY.replace("'self'", f"'self' {style_hash(picture)}", 1)
        return response

    async def picture_alone(request: Request) -> Response:
        _, picture, fault, code = await traced(request)
        if not picture:
            return PlainTextResponse(f"{fault or 'which name? /trace.svg?name=www.example.com'}\n", status_code=code)
        policy = f"default-src 'none'; style-src {style_hash(picture)}; frame-ancestors 'none'"
        return Response(picture, media_type="image/svg+xml", headers={"content-security-policy": policy})

    async def status(_: Request) -> Response:
        return JSONResponse(dict(state.snapshot()))

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready, reason = view.ready(state.snapshot())
        return PlainTextResponse(f"{reason}\n", status_code=200 if ready else 503)

    async def prometheus(request: Request) -> Response:
        body, content_type = render_metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def missing(_: Request, __: Exception) -> Response:
        return PlainTextResponse("There is nothing here. The status page is at /.\n", status_code=404)

    return Starlette(
        routes=[
            Route("/", page), Route("/live", live), Route("/explain", explained), Route("/trace", way),
            Route("/trace.svg", picture_alone), Route("/api/v1/status", status),
            Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", prometheus),
            Mount("/static", _Static(directory=_HERE / "static"), name="static"),
        ],
        middleware=[Middleware(_Guard, names=_own_names(node_settings))], exception_handlers={404: missing},
    )  # fmt: skip
