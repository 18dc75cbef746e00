// The kit: fetches AdRoll's first-party cookie from the pixel and the click id from the page's URL,
// and tells both to the site's own server. One <script data-adroll> tag loads it; the tag's data-
// attributes are its settings (README.md).
//
// Two builds: adroll-kit.min.js is this file with CONSENT false; adroll-kit-consent.min.js is
// adroll-kit-consent.js, which imports this one, with CONSENT true. `make kit` makes both.
//
// A tracking fault is never the shop's fault: nothing here may throw into the page. What the page,
// the browser's settings or the pixel can make throw stands in a try of its own, and a failed
// request is nobody's business but the next page's, which tells again.

// A script that runs as itself has currentScript. Where it is null (in a bundle, as a module) the
// tag is looked for. <img name="currentScript"> answers to that name, too: markup that somebody
// brought in must not choose the script that is given our nonce.
const tag = document.currentScript || document.querySelector("script[data-adroll]");
export const settings = tag instanceof HTMLScriptElement && tag.dataset;
export const kit = (window.adrollKit ||= {});

// What this page found out for the server, and what this tab had told it before this page; `told`
// is both as text, as last sent.
let known = {};
let before, told;
// The pixel that was asked for the cookie: a stub's array first, an object once it has loaded.
let asked;
// Consent build: may anything happen; our pixel's script and whether it ran; a pixel put aside.
let live, script, ran, aside;

const METHODS = ["setProperties", "identify", "track", "identify_email", "get_cookie"];

// Read at once and kept for the page: a single-page app may rewrite the address at any time. Where
// it did before this script ran, the navigation's entry still has the address that was opened.
// A plus sign stays one, as on the server, and what the server would refuse is none.
let click;
try {
  [click] = /^[!-~]{1,240}$/.exec(
    decodeURIComponent(
      /[?&]adct=([^&#]+)/.exec(
        location + "&" + performance.getEntriesByType("navigation")[0].name,
      )[1],
    ),
  );
} catch {}

export const hasCookie = () => /__adroll_fpc=/.test(document.cookie);

export const post = (body) =>
  fetch(settings.identity, {
    method: "POST",
    // Outlives the page that it leaves from.
    keepalive: true,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

// Consent build: what is to be done with the server's answer.
export const hooks = {};

// One request, where the server does not know yet. `waited`: nothing more is to be expected. Then
// a tab that told nothing and has no cookie says so: its pages may come from a cache, and the
// server, which never saw them, gives it one.
const tell = (waited) => {
  const all = JSON.stringify({ ...before, ...known });
  try {
    if (all != (told || (waited && !hasCookie()) ? told : "{}")) {
      told = all;
      post(known)
        .then((response) => {
          if (CONSENT && !live) return;
          // Kept for the tab's next pages. After a failure that may pass they tell it again.
          if (response.status < 500) sessionStorage.adrollKit = all;
          if (CONSENT) return hooks.heed(response);
        })
        .catch(() => {});
    }
  } catch {}
};

const answer = (cookie) => {
  // Anything else the server refuses, and the browser would log the refusal.
  if (/^[\da-f]{32}-(s2-|a_)?\d{10,14}-?$/i.test(cookie) && (!CONSENT || live)) {
    known.first_party_cookie = cookie;
    tell();
  }
};

// `more`: what else the server is to know.
export const start = (more) => {
  let turns = settings.pixel != "none" && settings.wait / 200;
  const poll = () => {
    if (CONSENT && !live) return;
    if (turns && window.adroll != asked) {
      asked = window.adroll;
      try {
        // Loaders of old have no stub for it. Their queue takes what the stub would put there.
        if (asked.get_cookie) asked.get_cookie(answer);
        else asked.push(["get_cookie", [answer]]);
      } catch {}
    }
    if (known.first_party_cookie) return;
    if (turns-- > 0) setTimeout(poll, 200);
    else tell(1);
  };

  try {
    before = JSON.parse((told = sessionStorage.adrollKit));
  } catch {}
  if (click) known.adct = click;
  if (CONSENT) {
    Object.assign(known, more);
    live = true;
    if (aside) window.adroll = aside.pixel;
    aside = 0;
  }
  // AdRoll's loader, unless the site's own was first: one pixel is enough.
  if (settings.src && !window.__adroll_loaded)
    try {
      window.adroll_adv_id = settings.adv;
      window.adroll_pix_id = settings.pix;
      window.adroll_version = "2.0";
      window.__adroll_loaded = true;
      const queue = (window.adroll ||= []);
      queue.f = METHODS;
      for (const name of METHODS) queue[name] ||= (...values) => queue.push([name, values]);
      queue.track("pageView");
      script = document.createElement("script");
      script.nonce = tag.nonce;
      // A blocked pixel is not waited for.
      script.onerror = () => (turns = 0);
      if (CONSENT) script.onload = () => (ran = 1);
      script.src = settings.src;
      document.head.append(script);
    } catch {}
  poll();
};

// Ends what start() began and leaves nothing behind. True where there was something to end.
export const stop = () => {
  let had = live;
  live = asked = told = before = undefined;
  known = {};
  if (script && !aside) {
    if (!ran) {
      // Taking it out of the page does not keep it from running, but in another document it never
      // runs (HTML, "execute the script element").
      document.implementation.createHTMLDocument("").adoptNode(script);
      script = window.__adroll_loaded = window.adroll = undefined;
    }
    // A pixel that ran cannot be unloaded. What the page tells it gets there no longer.
    aside = { pixel: window.adroll };
    const inert = (window.adroll = { push() {} });
    for (const name of METHODS) inert[name] = inert.push;
  }
  try {
    had ||= hasCookie();
    // The pixel's is a domain cookie of the host, the server's may be, others' may be a parent's.
    const labels = location.hostname.split(".");
    for (const i of [-1, ...labels.keys()])
      document.cookie =
        "__adroll_fpc=;path=/;max-age=0" + (i < 0 ? "" : ";domain=" + labels.slice(i).join("."));
    had ||= sessionStorage.adrollKit;
    delete sessionStorage.adrollKit;
  } catch {}
  return had;
};

// Runs `go`, at most once per page whatever is loaded twice, and not before the page is shown: a
// prerendered page may never be seen.
export const begin = (go) => {
  if (settings.identity && origin != "null" && !kit.on && !(navigator.globalPrivacyControl && settings.gpc != 0)) {
    kit.on = 1;
    // Who leaves does not wait for the pixel's answer.
    addEventListener("pagehide", () => tell());
    addEventListener("visibilitychange", () => document.hidden && tell());
    if (document.prerendering) document.addEventListener("prerenderingchange", go);
    else go();
  }
};

if (!CONSENT) begin(start);
