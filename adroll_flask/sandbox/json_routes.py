"""The routes for programs: what was seen, as JSON, and faults on demand."""

from __future__ import annotations

import json
from dataclasses import asdict

from flask import Blueprint, Response, request

from . import local_only
from .faults import REFUSE, BadFault, fault_from
from .parts import Sandbox, error_answer, json_answer

_MATCHES = ("event_name", "order_id", "verdict")


def blueprint(sandbox: Sandbox) -> Blueprint:
    routes = Blueprint("programs", __name__)
    state = sandbox.state
    faults = sandbox.faults

    @routes.before_request
    def only_the_same_site() -> Response | None:
        if local_only.is_own_page(request.headers.get("Sec-Fetch-Site")):
            return None
        return error_answer(403, "forbidden", "not from other sites")

    @routes.get("/events")
    def events() -> Response:
        match = {name: request.args[name] for name in _MATCHES if name in request.args}
        after = request.args.get("after", 0, int)
        matching = state.events(after=after, **match)
        limit = request.args.get("limit", type=int)
        if limit is not None:
            matching = matching[-limit:] if limit > 0 else []
        return json_answer(
            {
                "events": matching,
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
        return json_answer({"requests": state.requests()})

    @routes.get("/totals")
    def totals() -> Response:
        return json_answer({"totals": state.totals(), "meter": state.meter()})

    @routes.get("/faults")
    def list_faults() -> Response:
        return json_answer({"faults": faults.list()})

    @routes.post("/faults")
    def add_fault() -> Response:
        # A page of another site can post forms and plain text here, but not JSON.
        if request.mimetype != "application/json":
            return error_answer(415, "invalid", "Content-Type: must be application/json")
        try:
            fault = fault_from(json.loads(request.stream.read(65536)))
        except BadFault as exc:
            return error_answer(400, "invalid", str(exc))
        except (ValueError, RecursionError):
            return error_answer(400, "invalid", "the body must be JSON")
        if fault.refuse is not None:
            refuse = request.environ.get(REFUSE)
            if refuse is None:
                return error_answer(501, "invalid", "refuse: this server cannot close its port")
            refuse(fault.refuse)
            return json_answer({"fault": {"refuse": fault.refuse}}, 201)
        faults.add(fault)
        state.touch()
        return json_answer({"fault": {**asdict(fault), "left": fault.seconds}}, 201)

    @routes.delete("/faults")
    @routes.delete("/faults/<int:number>")
    def end_faults(number: int | None = None) -> Response:
        faults.clear(number)
        state.touch()
        return Response(status=204)

    return routes
