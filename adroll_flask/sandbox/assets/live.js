/* The live view. Whatever an event holds is put into the page as text, never as HTML. */
(function () {
  "use strict";
  var MOST_ROWS = 250;
  var IDENTIFIERS = [
    ["adct", "click id"], ["first_party_cookie", "first-party cookie"], ["email", "e-mail"],
    ["email_sha256", "e-mail SHA-256"], ["email_md5", "e-mail MD5"], ["device_id", "device id"],
    ["user_id", "user id"]
  ];
  var STEPS = { "click": "Ad click", "page": "Page with pixel", "event": "", "refused event": "Refused", "pixel event": "Pixel" };
  var records = new Map();
  var chosen = null, following = true, tab = "events", faultTimer = 0;
  var narrow = window.matchMedia("(max-width: 980px)");
  var detail = byId("detail");
  var stage = document.querySelector(".stage");

  function byId(id) { return document.getElementById(id); }

  function el(name, className) {
    var node = document.createElement(name);
    if (className) node.className = className;
    for (var i = 2; i < arguments.length; i++) {
      if (arguments[i] !== null && arguments[i] !== undefined) node.append(arguments[i]);
    }
    return node;
  }

  function time(seconds) {
    return new Date(seconds * 1000).toLocaleTimeString("en-GB");
  }

  /* How long after it happened an event arrived, where that is more than the usual moment. */
  function lateness(record) {
    var late = Math.round(record.received_at - record.happened_at);
    if (late < 5) return null;
    if (late < 120) return late + " s";
    if (late < 7200) return Math.round(late / 60) + " min";
    return late < 172800 ? Math.round(late / 3600) + " h" : Math.round(late / 86400) + " days";
  }

  function percent(share) { return Math.round(share * 100) + " %"; }

  function member(value, name) {
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value[name] : undefined;
  }

  function money(record) {
    var value = member(record.event, "conversion_value");
    if (typeof value !== "string" && typeof value !== "number") return null;
    return value + " " + (member(record.event, "currency") || "");
  }

  function title(record) { return record.event_name || "not an event"; }

  function tags(record) {
    var found = [];
    function tag(kind, text) { found.push(el("span", "tag " + kind, text)); }
    if (record.verdict === "rejected") tag("bad", record.errors.length === 1 ? record.errors[0].field || "rejected" : count(record.errors.length, "error", "errors"));
    if (record.verdict === "held_back") tag("", "refused with its batch");
    if (record.dry_run) tag("", "dry run");
    if (record.verdict === "accepted" && record.journey.matched_by) tag("good", "matched by " + record.journey.matched_by);
    if (lateness(record)) tag("", lateness(record) + " late");
    if (record.duplicate) tag("warn", "reported twice");
    if (record.reported_by_pixel_too) tag("warn", "pixel reported it too");
    if (record.warnings.length) tag("warn", count(record.warnings.length, "warning", "warnings"));
    return found;
  }

  function seven(coverage) {
    var node = el("span", "seven");
    node.title = coverage.carried.length + " of 7 identifiers";
    IDENTIFIERS.forEach(function (pair) {
      node.append(el("i", coverage.carried.indexOf(pair[0]) >= 0 ? "on" : ""));
    });
    return node;
  }

  /* -- the list ------------------------------------------------------------------------------ */

  function draw(record) {
    var row = el("button", "row " + record.verdict + (record.dry_run ? " dry" : ""),
      el("span", "dot"),
      el("span", "name", title(record), record.order_id ? el("i", "", record.order_id) : null),
      el("span", "money", money(record)));
    var line = el("span", "tags", seven(record.coverage));
    tags(record).forEach(function (tag) { line.append(tag); });
    row.append(line, el("span", "when", time(record.received_at)));
    row.type = "button";
    row.addEventListener("click", function () {
      following = false;
      choose(chosen === record.id && narrow.matches ? null : record.id);
    });
    row.setAttribute("aria-pressed", String(chosen === record.id));
    return row;
  }

  function show(record, fresh) {
    var known = records.get(record.id);
    var item = known ? known.item : el("li", fresh ? "fresh" : "");
    if (known) item.querySelector(".row").replaceWith(draw(record)); else item.append(draw(record));
    records.set(record.id, { record: record, item: item });
    if (!known) byId("events").prepend(item);
    if (chosen === record.id) tell(record);
  }

  function trim() {
    var ids = Array.from(records.keys());
    ids.slice(0, Math.max(0, ids.length - MOST_ROWS)).forEach(function (id) {
      if (id === chosen) return;
      records.get(id).item.remove();
      records.delete(id);
    });
  }

  function choose(id) {
    var before = records.get(chosen);
    if (before) before.item.querySelector(".row").setAttribute("aria-pressed", "false");
    chosen = records.has(id) ? id : null;
    stage.classList.toggle("chosen", chosen !== null);
    detail.hidden = chosen === null;
    if (chosen === null) return;
    records.get(chosen).item.querySelector(".row").setAttribute("aria-pressed", "true");
    tell(records.get(chosen).record);
    place();
  }

  /* Wide windows have the detail beside the list, narrow ones below the row that was chosen. */
  function place() {
    var entry = records.get(chosen);
    if (narrow.matches && entry) entry.item.append(detail); else stage.append(detail);
    detail.scrollTop = 0;
  }

  /* -- the detail ---------------------------------------------------------------------------- */

  function tell(record) {
    detail.replaceChildren(
      el("header", "", el("h3", "", title(record) + (record.order_id ? " " + record.order_id : "")),
        el("span", "money", money(record))));
    verdict(record).forEach(function (node) { detail.append(node); });
    detail.append(el("h4", "", "Journey", el("em", "", journeyNote(record))), steps(record));
    detail.append(el("h4", "", "Identifiers", seven(record.coverage),
      el("em", "", record.coverage.carried.length + " of 7")), identifiers(record));
    var copy = el("button", "copy", "Copy");
    copy.type = "button";
    var text = JSON.stringify(record.event, null, 2);
    copy.addEventListener("click", function () {
      navigator.clipboard.writeText(text).then(function () { copy.textContent = "Copied"; });
    });
    var raw = el("pre", "raw");
    colour(raw, text);
    detail.append(el("h4", "", "Raw event", copy), raw);
  }

  function verdict(record) {
    var found = [];
    if (record.verdict === "accepted") {
      var by = record.journey.matched_by;
      var click = record.journey.click;
      found.push(record.dry_run
        ? el("p", "verdict plain", "In order. A dry run: it counts for nothing.")
        : el("p", "verdict", by
          ? "Accepted, and matched to the ad click" +
            (by === "click id" ? " of " + time(click.at) + " by its click id" : " by the first-party cookie")
          : "Accepted. No click on this sandbox's ad belongs to it."));
    } else if (record.verdict === "held_back") {
      found.push(el("p", "verdict plain", "In order, but refused together with another event of its batch."));
    } else {
      var list = el("ul");
      record.errors.forEach(function (error) {
        list.append(el("li", "", el("code", "", error.field), " " + error.message));
      });
      found.push(el("div", "verdict bad", "Rejected", list));
    }
    var doubts = record.warnings.slice();
    if (record.duplicate) doubts.unshift("The same order was reported before, in event " + record.duplicate_of + ".");
    if (record.reported_by_pixel_too) doubts.unshift("The page's pixel reported this order as well: it counts twice.");
    if (doubts.length) {
      var doubtList = el("ul");
      doubts.forEach(function (doubt) { doubtList.append(el("li", "", doubt)); });
      found.push(el("div", "verdict warn", "Look at this", doubtList));
    }
    return found;
  }

  function journeyNote(record) {
    var cookie = record.journey.cookie;
    if (cookie && cookie.seen_by_pixel) {
      return "cookie made by the " + cookie.made_by + ", seen on " + cookie.pages + (cookie.pages === 1 ? " page" : " pages");
    }
    if (cookie) return "the pixel has not seen this cookie";
    return record.journey.click ? "no first-party cookie" : "no identifier of a browser";
  }

  function steps(record) {
    var list = el("ol", "steps");
    record.journey.steps.forEach(function (step) {
      var before = STEPS[step.what];
      var text = step.what === "page" || !before ? step.detail : before + (step.detail ? " \u2192 " + step.detail : "");
      var item = el("li", step.what.replace(" ", "-"), el("b", "", text || ""), el("span", "", time(step.at)));
      item.firstChild.title = text || "";
      list.append(item);
    });
    list.append(el("li", "now" + (record.verdict === "accepted" ? "" : " bad"),
      el("b", "", title(record)), el("span", "", time(record.happened_at) +
        (lateness(record) ? ", arrived " + lateness(record) + " later" : ""))));
    return list;
  }

  function identifiers(record) {
    var held = member(record.event, "identifiers");
    var list = el("dl", "ids");
    IDENTIFIERS.forEach(function (pair) {
      var value = member(held, pair[0]);
      var there = value !== undefined && value !== null && value !== "";
      var text = Array.isArray(value) ? value.join(", ") : there ? String(value) : "not sent";
      var shown = el("dd", "value", text);
      if (there) shown.title = text;
      list.append(el("div", there ? "" : "missing", el("dt", "", pair[1]), shown,
        el("dd", "note", there ? note(pair[0], record) : "")));
    });
    return list;
  }

  function note(name, record) {
    var click = record.journey.click, cookie = record.journey.cookie;
    if (name === "adct" && click) return click.known ? "clicked at " + time(click.at) : "no click of this sandbox";
    if (name === "first_party_cookie" && cookie) {
      return cookie.seen_by_pixel ? "same as the pixel's" : "not seen by the pixel";
    }
    return "";
  }

  function colour(node, text) {
    var part = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\b(?:true|false|null)\b/g;
    var from = 0, found;
    if (text.length > 200000) { node.append(text); return; }
    while ((found = part.exec(text)) !== null) {
      node.append(text.slice(from, found.index));
      node.append(el("span", found[2] ? "k" : found[1] ? "s" : "n", found[1] || found[0]));
      if (found[2]) node.append(found[2]);
      from = part.lastIndex;
    }
    node.append(text.slice(from));
  }

  /* -- figures, coverage, faults --------------------------------------------------------------- */

  function count(number, one, many) { return number.toLocaleString("en-GB") + " " + (number === 1 ? one : many); }

  function figure(id, number, note) {
    byId(id).textContent = number.toLocaleString("en-GB");
    byId(id).parentNode.classList.toggle("on", number > 0);
    byId(id + "-note").textContent = note;
  }

  function overview(news) {
    var totals = news.totals;
    figure("accepted", totals.accepted, totals.accepted
      ? count(totals.distinct_orders, "order", "orders") + (totals.dry_run ? ", " + count(totals.dry_run, "dry run", "dry runs") : "")
      : totals.dry_run ? count(totals.dry_run, "dry run", "dry runs") : "no events yet");
    figure("matched", totals.matched, totals.accepted
      ? percent(totals.matched / totals.accepted) + " of the accepted" : "by click id or cookie");
    figure("refused", totals.rejected + totals.held_back, totals.held_back
      ? count(totals.held_back, "only for its batch", "only for their batch") : "rule broken, or batch with one");
    figure("twice", totals.duplicates + totals.both_sides, totals.both_sides
      ? totals.both_sides + " by the pixel as well" : "same order, or pixel as well");
    var meter = news.meter;
    byId("score").textContent = meter.score === null ? "no events yet" : percent(meter.score);
    byId("bars").replaceChildren.apply(byId("bars"), IDENTIFIERS.map(function (pair) {
      var share = meter.events ? meter.carried[pair[0]] / meter.events : 0;
      return el("li", "", el("span", "", pair[1]), bar(share), el("span", "pct", percent(share)));
    }));
  }

  /* An SVG, because the page's policy allows no inline style. */
  function bar(share) {
    var space = "http://www.w3.org/2000/svg";
    var svg = document.createElementNS(space, "svg");
    var rect = document.createElementNS(space, "rect");
    svg.setAttribute("viewBox", "0 0 100 8");
    svg.setAttribute("preserveAspectRatio", "none");
    rect.setAttribute("width", String(Math.round(share * 100)));
    rect.setAttribute("height", "8");
    svg.append(rect);
    return el("span", "bar", svg);
  }

  function health(faults) {
    var failing = faults.length > 0;
    document.querySelector(".faults").classList.toggle("failing", failing);
    byId("restore").hidden = !failing;
    byId("health").textContent = failing ? "failing on demand" : "answering";
    window.clearTimeout(faultTimer);
    var ends = faults.map(function (fault) { return fault.left; }).filter(function (left) { return left !== null; });
    if (ends.length) {
      faultTimer = window.setTimeout(function () {
        get("/faults", function (answer) { health(answer.faults); });
      }, Math.min.apply(null, ends) * 1000 + 100);
    }
  }

  /* -- requests and pixel ---------------------------------------------------------------------- */

  function get(url, then) {
    fetch(url).then(function (answer) { return answer.json(); }).then(then, function () {});
  }

  function plain(kind, name, extra, right, tagList, at) {
    var row = el("div", "row " + kind, el("span", "dot"),
      el("span", "name", name, extra ? el("i", "", extra) : null), el("span", "money", right));
    var line = el("span", "tags");
    tagList.forEach(function (tag) {
      if (!tag[1]) return;
      var shown = el("span", "tag " + tag[0], tag[1]);
      if (tag[2]) shown.title = tag[2];
      line.append(shown);
    });
    row.append(line, el("span", "when", time(at)));
    return el("li", "", row);
  }

  function request(one) {
    var good = one.status >= 200 && one.status < 300 && one.outcome === "answered";
    return plain(good ? "" : "rejected", one.method + " " + one.path, one.connection,
      one.status === null ? "no answer" : one.status,
      [["", count(one.events, "event", "events")], ["", count(one.bytes, "byte", "bytes")], ["", one.gzip ? "gzip" : ""],
        ["", one.dry_run ? "dry run" : ""], [one.outcome === "answered" ? "" : "bad", one.outcome === "answered" ? "" : one.outcome],
        ["warn", one.fault ? "on demand" : ""],
        ["warn", one.warnings.length ? count(one.warnings.length, "warning", "warnings") : "", one.warnings.join("\n")]], one.at);
  }

  function tracked(one) {
    return plain("", one.event_name || one.kind, one.order_id, "",
      [["", one.page || ""], ["warn", one.reported_by_server_too ? "the server reported it too" : ""]], one.received_at);
  }

  function refresh() {
    if (tab === "requests") {
      get("/requests", function (answer) { fill("requests", answer.requests.map(request)); });
    } else if (tab === "tracked") {
      get("/events?limit=0", function (answer) { fill("tracked", answer.tracked.map(tracked)); });
    }
    stage.classList.toggle("chosen", tab === "events" && chosen !== null);
    detail.hidden = tab !== "events" || chosen === null;
    byId("empty").hidden = tab !== "events" || records.size > 0;
  }

  function fill(id, items) {
    if (!items.length) items = [el("li", "empty", id === "requests" ? "No request to the event API yet." : "The pixel has reported nothing yet.")];
    byId(id).replaceChildren.apply(byId(id), items.slice(-MOST_ROWS).reverse());
  }

  /* -- wiring ---------------------------------------------------------------------------------- */

  function receive(news) {
    if (news.reset) {
      following = true;
      choose(null);
      records.clear();
      stage.append(detail);
      byId("events").replaceChildren();
    }
    news.events.forEach(function (record) { show(record, !news.reset); });
    trim();
    if (news.events.length && following && !narrow.matches) {
      choose(news.events[news.events.length - 1].id);
    }
    overview(news);
    health(news.faults);
    refresh();
  }

  document.querySelectorAll("[data-tab]").forEach(function (button) {
    button.addEventListener("click", function () {
      tab = button.dataset.tab;
      document.querySelectorAll("[data-tab]").forEach(function (other) {
        other.setAttribute("aria-selected", String(other === button));
      });
      document.querySelectorAll("[data-panel]").forEach(function (panel) {
        panel.hidden = panel.dataset.panel !== tab;
      });
      refresh();
    });
  });
  document.querySelectorAll("[data-fault]").forEach(function (button) {
    button.addEventListener("click", function () {
      fetch("/faults", { method: "POST", headers: { "Content-Type": "application/json" }, body: button.dataset.fault });
    });
  });
  byId("restore").addEventListener("click", function () { fetch("/faults", { method: "DELETE" }); });
  byId("clear").addEventListener("click", function () { fetch("/events", { method: "DELETE" }); });
  byId("api-url").textContent = window.location.origin + "/api";
  byId("pixel-url").textContent = window.location.origin + "/j/{advertisable_eid}/roundtrip.js";
  narrow.addEventListener("change", function () { if (chosen !== null) place(); });

  var source = new EventSource("/live");
  source.onopen = function () { byId("link").className = "link live"; byId("link").textContent = "live"; };
  source.onerror = function () { byId("link").className = "link"; byId("link").textContent = "reconnecting"; };
  source.onmessage = function (message) { receive(JSON.parse(message.data)); };
})();
