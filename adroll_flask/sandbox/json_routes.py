"""The routes for programs: what was seen, as JSON, and faults on demand."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, request

from .faults import REFUSE, BadFault, fault_from
from .parts import Sandbox

_MATCHES = ("event_name", "order_id", "verdict")


def blueprint(sandbox: Sandbox) -> Blueprint:
    routes = Blueprint("programs", __name__)
    state = sandbox.state
    faults = sandbox.faults

    @routes.before_request
    def only_the_same_site() -> Response | None:
        """Keep other sites' pages, open in the same browser, from reading or changing anything."""
        if request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
            return None
        return _json({"errors": [{"message": "not from other sites", "code": "forbidden"}]}, 403)

    @routes.get("/events")
    def events() -> Response:
        match = {name: request.args[name] for name in _MATCHES if name in request.args}
        after = request.args.get("after", 0, int)
        matching = state.events(after=after, **match)
        limit = request.args.get("limit", len(matching), int)
        return _json(
            {
                "events": matching[max(0, len(matching) - max(0, limit)) :],
                "tracked": state.tracked(),
                "totals": state.totals(),
                "meter": state.meter(),
            }
        )

    @routes.delete("/events")
    def forget() -> Response:
        state.clear()
        return Response(status=204)

    @routes.get("/requests")
    def requests() -> Response:
        return _json({"requests": state.requests()})

    @routes.get("/totals")
    def totals() -> Response:
        return _json({"totals": state.totals(), "meter": state.meter()})

    @routes.get("/faults")
    def list_faults() -> Response:
        return _json({"faults": faults.list()})

    @routes.post("/faults")
    def add_fault() -> Response:
        # A page of another site can post forms and plain text here, but not JSON.
        if request.mimetype != "application/json":
            return _wrong("Content-Type: must be application/json", 415)
        try:
            fault = fault_from(json.loads(request.stream.read(65536)))
        except BadFault as exc:
            return _wrong(str(exc))
        except (ValueError, RecursionError):
            return _wrong("the body must be JSON")
        if fault.refuse is not None:
            refuse = request.environ.get(REFUSE)
            if refuse is None:
                return _wrong("refuse: this server cannot close its port", 501)
            refuse(fault.refuse)
            return _json({"fault": {"refuse": fault.refuse}}, 201)
        faults.add(fault)
        state.touch()
        return _json({"fault": faults.describe(fault)}, 201)

    @routes.delete("/faults")
    def end_faults() -> Response:
        faults.clear()
        state.touch()
        return Response(status=204)

    @routes.delete("/faults/<int:number>")
    def end_fault(number: int) -> Response:
        faults.clear(number)
        state.touch()
        return Response(status=204)

    return routes


def _wrong(message: str, status: int = 400) -> Response:
    return _json({"errors": [{"message": message, "code": "invalid", "field": ""}]}, status)


def _json(answer: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(answer),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )
