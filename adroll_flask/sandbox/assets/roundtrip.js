/* The sandbox's stand-in for AdRoll's pixel script. It does to cookies what the real one does, takes
   over the loader's queue, answers get_cookie, and tells the sandbox what the page tracks. */
(function (window, document) {
  "use strict";
  var settings = /*SETTINGS*/{};
  var adroll = window.adroll = window.adroll || [];
  if (adroll.sandbox) return;
  adroll.sandbox = true;

  var NAME = "__adroll_fpc";
  var YEAR = 365 * 24 * 3600 * 1000;
  var script = document.currentScript;
  var origin = script && script.src ? new URL(script.src).origin : settings.origin;
  var value = null;
  var adopted = false;
  var settled = false;
  var waiting = [];

  function held() {
    var found = document.cookie.split("; ").filter(function (pair) {
      return pair.indexOf(NAME + "=") === 0;
    });
    return found.map(function (pair) { return normalise(pair.slice(NAME.length + 1)); })
      .filter(Boolean)[0] || null;
  }

  function normalise(text) {
    try { text = decodeURIComponent(text); } catch (e) { /* taken as it stands */ }
    var parts = /^([0-9a-f]{32})-(?:s2-)?(.+?)-?$/i.exec(text);
    if (!parts) return null;
    if (/^(?:\d+|a_\d+)$/.test(parts[2])) return parts[1] + "-" + parts[2];
    var time = Date.parse(parts[2]);
    return isNaN(time) ? null : parts[1] + "-" + time;
  }

  function fresh() {
    var bytes = window.crypto.getRandomValues(new Uint8Array(16));
    return Array.prototype.map.call(bytes, function (byte) {
      return (byte + 256).toString(16).slice(1);
    }).join("") + "-" + Date.now();
  }

  function start() {
    var found = held();
    adopted = found !== null;
    value = found || fresh();
    document.cookie = NAME + "=" + value + "; domain=" + window.location.hostname +
      "; path=/; expires=" + new Date(Date.now() + YEAR).toUTCString() + "; SameSite=Lax";
    settled = true;
    report({ kind: "cookie", adopted: adopted });
    waiting.splice(0).forEach(function (task) { task(); });
  }

  function whenSettled(task) {
    if (settled) task(); else waiting.push(task);
  }

  function report(what) {
    what.cookie = value;
    what.page = window.location.href;
    what.adv = window.adroll_adv_id;
    what.pix = window.adroll_pix_id;
    var url = origin + "/pixel/beacon/" + settings.eid;
    var text = JSON.stringify(what);
    /* text/plain and an image are "simple" requests: no preflight, no answer to read. */
    if (!navigator.sendBeacon || !navigator.sendBeacon(url, text)) {
      new Image().src = url + "?data=" + encodeURIComponent(text);
    }
  }

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

  /* The real script has a consent check of its own: no cookie before vendor 130 has consent. */
  if (typeof window.__tcfapi === "function") {
    window.__tcfapi("addEventListener", 2, function (data, ok) {
      if (!ok || settled || !data) return;
      var vendor = data.vendor && data.vendor.consents && data.vendor.consents[130];
      var purpose = data.purpose && data.purpose.consents && data.purpose.consents[1];
      if (data.gdprApplies === false || (vendor && purpose)) start();
    });
  } else {
    start();
  }
})(window, document);
