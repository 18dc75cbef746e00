/* The sandbox's stand-in for AdRoll's pixel script. It does to cookies what the real one does, asks
   for consent where it is needed, takes over the loader's queue, answers get_cookie, and tells the
   sandbox what the page tracks. */
(function (window, document) {
  "use strict";
  var settings = /*SETTINGS*/{};
  var adroll = window.adroll = window.adroll || [];
  if (adroll.sandbox) return;
  adroll.sandbox = true;

  var NAME = "__adroll_fpc";
  var CONSENT = "__adroll_consent";
  var YEAR = 365 * 24 * 3600 * 1000;
  var script = document.currentScript;
  var origin = script && script.src ? new URL(script.src).origin : settings.origin;
  var value = null;
  var adopted = false;
  var settled = false;
  var refused = false;
  var waiting = [];

  /* -- cookies ------------------------------------------------------------------------------- */

  /* The first that has a value, whatever it is and whoever wrote it. */
  function read(name) {
    var found = document.cookie.split("; ").filter(function (pair) {
      return pair.indexOf(name + "=") === 0 && pair.length > name.length + 1;
    });
    return found.length ? found[0].slice(name.length + 1) : null;
  }

  function write(name, text) {
    document.cookie = name + "=" + text + "; domain=" + window.location.hostname +
      "; path=/; expires=" + new Date(Date.now() + YEAR).toUTCString() + "; SameSite=Lax";
  }

  /* Without the marker and hyphens at the end; a date as text becomes milliseconds. */
  function normalise(text) {
    var plain = text;
    try { plain = decodeURIComponent(text); } catch (e) { /* taken as it stands */ }
    var dated = /^([0-9a-f]{32})-(?:s2-)?(.*\d:\d\d.*?)-?$/i.exec(plain);
    var time = dated ? Date.parse(dated[2]) : NaN;
    if (time >= 0) return dated[1] + "-" + time;
    return text.replace(/-(?:s2-)+/g, "-").replace(/-+$/, "");
  }

  function fresh() {
    var bytes = window.crypto.getRandomValues(new Uint8Array(16));
    return Array.prototype.map.call(bytes, function (byte) {
      return (byte + 256).toString(16).slice(1);
    }).join("") + "-" + Date.now();
  }

  function start() {
    if (settled) return;
    var found = normalise(read(NAME) || "");
    adopted = found !== "";
    value = found || fresh();
    write(NAME, value);
    write("__ar_v4", "sandbox");
    settled = true;
    report({ kind: "cookie", adopted: adopted });
    waiting.splice(0).forEach(function (task) { task(); });
  }

  /* What is told before the visitor's answer waits for it; what is told after a no is dropped. */
  function whenSettled(task) {
    if (settled) task(); else if (!refused) waiting.push(task);
  }

  function report(what) {
    what.cookie = value;
    what.page = window.location.href;
    var url = origin + "/pixel/beacon/" + settings.eid;
    var text = JSON.stringify(what);
    /* text/plain and an image are "simple" requests: no preflight, no answer to read. */
    if (!navigator.sendBeacon || !navigator.sendBeacon(url, text)) {
      new Image().src = url + "?data=" + encodeURIComponent(text);
    }
  }

  /* -- what the page calls --------------------------------------------------------------------- */

  var methods = {
    get_cookie: function (callback) {
      if (settings.get_cookie === "never" || typeof callback !== "function") return;
      whenSettled(function () {
        window.setTimeout(function () { callback(value); }, (settings.get_cookie || 0) * 1000);
      });
    },
    track: function (name, attributes) {
      whenSettled(function () {
        var given = attributes && typeof attributes === "object" ? attributes : {};
        var order = given.order_id || given.ORDER_ID || given.orderId;
        report({ kind: "track", name: String(name), attributes: given,
                 order_id: order === undefined ? null : String(order) });
      });
    },
    identify: function () {
      whenSettled(function () { report({ kind: "identify", name: "identify" }); });
    },
    identify_email: function () {
      /* That it was called is of interest, the address is not. */
      whenSettled(function () { report({ kind: "identify", name: "identify_email" }); });
    },
    setProperties: function () {}
  };

  var queue = Array.isArray(adroll) ? adroll.splice(0) : [];
  Object.keys(methods).forEach(function (name) { adroll[name] = methods[name]; });
  adroll.push = function (call) {
    if (call && methods[call[0]]) methods[call[0]].apply(adroll, Array.prototype.slice.call(call[1] || []));
  };
  queue.forEach(adroll.push);

  /* -- consent: nothing is written before vendor 130 has it ------------------------------------- */

  function listen() {
    window.__tcfapi("addEventListener", 2, function (data, ok) {
      if (!ok || settled || !data) return;
      var vendor = data.vendor && data.vendor.consents && data.vendor.consents[130];
      var purpose = data.purpose && data.purpose.consents && data.purpose.consents[1];
      if (data.gdprApplies === false || (vendor && purpose)) start();
      else if (data.eventStatus === "useractioncomplete" || data.eventStatus === "tcloaded") {
        refused = true;
        waiting.length = 0;
      }
    });
  }

  /* The real one's own consent platform, as far as a page can see it. */
  function installPlatform() {
    var listeners = [];
    var kept = read(CONSENT);
    var status = kept ? "tcloaded" : "cmpuishown";

    function data() {
      var yes = kept === "y";
      return { tcString: "", gdprApplies: true, eventStatus: status, cmpStatus: "loaded",
               vendor: { consents: { 130: yes } }, purpose: { consents: { 1: yes, 7: yes } } };
    }

    function answer(yes) {
      kept = yes ? "y" : "n";
      status = "useractioncomplete";
      write(CONSENT, kept);
      write(CONSENT + "_params", "sandbox");
      try { window.localStorage[CONSENT + "_data"] = JSON.stringify({ given: yes }); } catch (e) { /* blocked */ }
      listeners.forEach(function (callback) { callback(data(), true); });
    }

    window.__tcfapi = function (command, version, callback) {
      if (command === "addEventListener") listeners.push(callback);
      if (command === "addEventListener" || command === "getTCData") callback(data(), true);
      else if (typeof callback === "function") callback(null, false);
    };
    if (!kept) ask(answer);
  }

  function ask(answer) {
    var banner = document.createElement("div");
    banner.setAttribute("role", "dialog");
    banner.setAttribute("aria-label", "Cookies for advertising");
    var style = { position: "fixed", left: "0", right: "0", bottom: "0", zIndex: "2147483647", padding: "1em",
      background: "Canvas", color: "CanvasText", borderTop: "1px solid", font: "1rem system-ui, sans-serif" };
    Object.keys(style).forEach(function (name) { banner.style[name] = style[name]; });
    banner.append("May AdRoll use cookies to measure its ads? (The sandbox asks.) ");
    [["Allow", true], ["Decline", false]].forEach(function (pair) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = pair[0];
      button.style.margin = "0 .25em";
      button.addEventListener("click", function () { banner.remove(); answer(pair[1]); });
      banner.append(button);
    });
    if (document.body) document.body.append(banner);
    else document.addEventListener("DOMContentLoaded", function () { document.body.append(banner); });
  }

  if (typeof window.__tcfapi === "function") { listen(); return; }
  /* The check is a script, which says whether this visitor has to be asked. Where it does not come,
     nobody knows, and nothing is written. */
  window.__adroll_sandbox_check = function (required) {
    /* Somebody else's platform may have come in the meantime. */
    if (typeof window.__tcfapi !== "function") {
      if (!required) { start(); return; }
      installPlatform();
    }
    listen();
  };
  var check = document.createElement("script");
  if (script && script.nonce) check.nonce = script.nonce;
  check.src = origin + "/consent/check/" + settings.eid;
  document.head.append(check);
})(window, document);
