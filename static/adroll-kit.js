// The kit: fetches AdRoll's first-party cookie from the pixel and the click id from the page's URL,
// and tells both to the site's own server. One <script data-adroll> tag loads it; the tag's data-
// attributes are its settings (README.md).
//
// Four builds: adroll-kit.min.js is this file with CONSENT false; adroll-kit-consent.min.js is
// adroll-kit-consent.js, which imports this one, with CONSENT true; and each with ORIGINS true, for
// a site whose pages come from another origin than its API. `make kit` makes all.
//
// A tracking fault is never the shop's fault: nothing here may throw into the page. What the page,
// the browser's settings or the pixel can make throw stands in a try of its own, and a failed
// request is not repeated: the next page tells again.
//
// What the tab keeps is JSON with all that it told, with a space at its end until that has arrived;
// consent build: or 1, a no that has not arrived yet, or 0, the server's.

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
// The get_cookie that was asked for the cookie: a stub's first, the pixel's once it has loaded. It may
// change the stub's array in place. The array itself where a loader of old gave it none.
let asked;
// Consent build: may anything happen; our pixel's script and whether it ran; a pixel put aside.
let live, script, ran, aside;

const METHODS = ["setProperties", "identify", "track", "identify_email", "get_cookie"];

// Read at once and kept for the page: a single-page app may rewrite the address at any time. Where
// it did before this script ran, the navigation's entry still has the address that was opened;
// Safari before 15 has no such entry.
// A plus sign stays one, as on the server, and what the server would refuse is none.
let click;
try {
  [click] = /^[!-~]{1,240}$/.exec(
    decodeURIComponent(
      /[?&]adct=([^&#]+)/.exec(
        location + "&" + performance.getEntriesByType("navigation")[0]?.name,
      )[1],
    ),
  );
} catch {}

export const hasCookie = () => /__adroll_fpc=/.test(document.cookie);

// Consent build: one after the other, each after the answer to the one before it: a yes that is slow
// must not undo the no that follows it. Who leaves waits for nothing; the next page looks again.
const left = CONSENT && new Promise((go) => addEventListener("pagehide", go));
let last;

// Consent build: post.heed, what is to be done with the server's answer.
export const post = (body) => {
  const send = () =>
    fetch(settings.identity, {
      method: "POST",
      // Outlives the page that it leaves from.
      keepalive: true,
      ...(ORIGINS && { credentials: "include" }),
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  return CONSENT ? (last = Promise.race([last, left]).then(send, send)) : send();
};

// Origins build: resolves to what the page sends along with a call of its own, where no cookie goes.
// The server signs it, after what it knows of consent itself; undefined where it cannot be reached.
if (ORIGINS && settings.identity)
  kit.token ||= async () => {
    try {
      return (await (await post({ ...before, ...known, token: true })).json()).token;
    } catch {}
  };

// For the tab's next pages, under the address of what it is told to: a host may have two shops.
export const keep = (text) => {
  try {
    if (!CONSENT || text) sessionStorage[settings.identity] = text;
    else delete sessionStorage[settings.identity];
  } catch {}
};

// One request, where the server does not know yet. `waited`: nothing more is to be expected. Then
// a tab that told nothing and has no cookie says so: its pages may come from a cache, and the
// server, which never saw them, gives it one.
const tell = async (waited) => {
  try {
    const all = JSON.stringify({ ...before, ...known });
    if (all != (told || (waited && !hasCookie()) || "{}")) {
      keep((told = all) + " ");
      const response = await post(known);
      if (!CONSENT || live) {
        // 408, 425, 429 and 5xx may pass. What else is from 408 on, this server does not answer us.
        if (response.status < 408) keep(all);
        if (CONSENT) await post.heed(response);
      }
    }
  } catch {}
};

const answer = (cookie) => {
  // What the pixel keeps, whoever wrote it. Anything else the server refuses, and the browser would
  // log the refusal.
  if (cookie === "" + cookie && /^(?!-[-s2]*$)[!#-+\--:<-[\]-~]{1,80}$/.test(cookie) && (!CONSENT || live)) {
    known.first_party_cookie = cookie;
    tell();
  }
};

// `more`: what else the server is to know.
export const start = (more) => {
  let turns = settings.pixel != "none" && settings.wait / 200;
  const poll = () => {
    if (CONSENT && !live) return;
    try {
      const pixel = window.adroll;
      const one = pixel.get_cookie || pixel;
      if (turns && one != asked) {
        asked = one;
        // Loaders of old have no stub for it. Their queue takes what the stub would put there.
        if (pixel.get_cookie) pixel.get_cookie(answer);
        else pixel.push(["get_cookie", [answer]]);
      }
    } catch {}
    // The second half of the turns does not keep back what there is: WebKit says nothing to who leaves
    // a page that has not loaded, and the pixel's script may hang.
    if (!known.first_party_cookie && turns-- > 0)
      setTimeout(poll, 200, settings.wait / turns > 400 && tell());
    else tell(1);
  };

  try {
    before = JSON.parse((told = sessionStorage[settings.identity]));
    if (/ $/.test(told)) known = { ...before };
  } catch {}
  if (click) known.adct = click;
  if (CONSENT) {
    Object.assign(known, more);
    live = 1;
    if (aside) window.adroll = aside.pixel;
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
  live = asked = told = before = 0;
  known = {};
  if (script) {
    if (!ran) {
      // Taking it out of the page does not keep it from running, but in another document it never
      // runs (HTML, "execute the script element"). Firefox then calls that an error, which would end
      // the next start's wait.
      script.onerror = script.onload = 0;
      document.implementation.createHTMLDocument("").adoptNode(script);
      script = window.__adroll_loaded = window.adroll = 0;
    }
    // A pixel that ran cannot be unloaded. What the page tells it gets there no longer.
    aside = { pixel: window.adroll };
    const inert = (window.adroll = { push() {} });
    for (const name of METHODS) inert[name] = inert.push;
  }
  try {
    had ||= hasCookie();
    // What the pixel leaves beside its cookie. What it keeps of consent stays where the site loads it:
    // there it may be the site's consent platform, and would ask again whose no is gone.
    const names = settings.src ? /__a(droll|r_v4)\w*/g : /__a(droll_fpc|r_v4)/g;
    const labels = location.hostname.split(".");
    for (const [name] of document.cookie.matchAll(names))
      // Host-only, then the host's, as the pixel writes it, then its parents' for as long as one is
      // left: browsers log each try at a public suffix.
      for (const i of labels.keys())
        if (document.cookie.includes(name + "="))
          document.cookie =
            name + "=;path=/;max-age=0" + (i ? ";domain=" + labels.slice(i - 1).join(".") : "");
    if (settings.src) delete localStorage.__adroll_consent_data;
    // A no that was remembered is nothing to end.
    had ||= sessionStorage[settings.identity] > "0";
  } catch {}
  keep();
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
