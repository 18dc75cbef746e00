// The kit with consent: nothing starts and nothing is stored before somebody who knows has said yes.
// Heard are the site (adrollKit.consent), the TCF's __tcfapi, with "gpp" the opt-outs of __gpp,
// Consent Mode's ad_storage and the server. Of all but the last any no is a no; the server's word
// counts until one of them has spoken, and its no to what we told it counts in any case.

import { begin, hasCookie, keep, kit, post, settings, start, stop } from "./adroll-kit.js";

// There is a function to call from now on, also where nothing ever starts.
kit.q ||= [];
kit.consent ||= (yes) => kit.q.push(yes);

begin(() => {
  const [vendor, ...purposes] = (settings.tcf || "130:1,7").split(/[:,]/);
  const said = {};
  // Before this voice has said yes nothing starts, whoever else says so.
  let awaited = settings.consent == "gpp" && "gpp";
  let joined, joinedGpp, kept, state;

  const say = (body, heard) => post(body).then(heard).catch(() => {});

  // `news`: the server does not know it yet, and is told.
  const apply = (consent, news) => {
    if (consent === state) return;
    state = consent;
    if (consent) start(news && { consent });
    else if (stop() && news) {
      // Nothing of the visitor: until it has arrived, the next page tells it again.
      keep(1);
      say({ consent }, (response) => response.status < 408 && (state || keep()));
    }
  };

  const hear = (who, yes) => {
    if (yes === !!yes && said[who] !== yes) {
      said[who] = yes;
      if (Object.values(said).includes(false)) apply(false, 1);
      else if (said[awaited || who]) apply(true, 1);
    }
  };

  // A 204 has no JSON: the promise is rejected, and nothing changes.
  post.heed = async (response) => {
    const { consent } = await response.json();
    if (consent == false) {
      apply(false);
      // Nothing of the visitor: this tab's pages need not ask again.
      if (settings.consent == "ask") keep("0");
    }
    if (consent && state == null) {
      keep(ORIGINS && kept > "0" ? kept : "{}");
      apply(true);
    }
  };

  const heardTcf = (tc, ok) => {
    // While the dialogue is open, the visitor has not decided.
    if (ok && tc.eventStatus != "cmpuishown")
      hear(
        "tcf",
        tc.gdprApplies === false ||
          !!tc.vendor?.consents?.[vendor] &&
            purposes.every(
              (id) =>
                tc.purpose?.consents?.[id] &&
                // The even ones: 0, the publisher does not allow this purpose to this vendor, and
                // 2, not by consent.
                tc.publisher?.restrictions?.[id]?.[vendor] % 2 != 0,
            ),
      );
  };

  // What cannot be read is no answer.
  const heardGpp = (event) => {
    try {
      const ping = event.pingData;
      const applies = ping.applicableSections;
      const sections = { ...ping.parsedSections };
      // "7:usnat": the number of a section and its name.
      for (const api of ping.supportedAPIs)
        if (!applies.includes(parseInt(api))) delete sections[api.split(":")[1]];
      // While the visitor is being asked, it is not.
      if (ping.signalStatus == "ready") {
        // Section 2 is the European Union's: there the TCF's answer counts. Another voice may be
        // awaited than before, though this one says the same.
        awaited = applies.includes(2) ? "tcf" : "gpp";
        said.gpp = 0;
        // SaleOptOut, SharingOptOut or TargetedAdvertisingOptOut, Global Privacy Control, or
        // OptOutSale of uspv1, which came before these: only sections of the US, national or a
        // state's, have fields that end so. A section is an object, or several.
        hear("gpp", !/(Gpc|Out|Sale)":"?[1tY]/.test(JSON.stringify(sections)));
      }
    } catch {}
  };

  // Frames and elements answer to names as well: markup that somebody brought in is no consent.
  const bool = (value) => (value === !!value ? value : null);

  // True and false, or neither: a default of "denied" is what holds until the visitor is asked.
  const adStorage = () => {
    // Where Google's tag has loaded, this is what it goes by (regions are sorted out there).
    const entry = window.google_tag_data?.ics?.entries?.ad_storage;
    let initial = bool(entry?.default);
    let update;
    for (const command of window.dataLayer || []) {
      const value = command?.[0] == "consent" && command[2]?.ad_storage;
      if (value) {
        const yes = value == "granted";
        if (command[1] == "update") update = yes;
        // We do not know the visitor's region: where one is named, or any default is a no, wait.
        else if (!entry) initial = yes && !command[2].region && initial !== false;
      }
    }
    return bool(entry?.update) ?? update ?? (initial || 0);
  };

  // None says when it comes, and Consent Mode has no public event: look twice a second.
  const look = () => {
    try {
      if (!joined && window.__tcfapi) {
        joined = 1;
        window.__tcfapi("addEventListener", 2, heardTcf);
      }
    } catch {}
    try {
      if (awaited && !joinedGpp && window.__gpp) {
        joinedGpp = 1;
        window.__gpp("addEventListener", heardGpp);
      }
    } catch {}
    try {
      hear("google", adStorage());
    } catch {}
    setTimeout(look, 500);
  };

  try {
    kept = sessionStorage[settings.identity];
  } catch {}
  if (kept == 1) apply(false, 1);
  kit.consent = (yes) => hear("site", yes);
  kit.consent(kit.q.pop());
  look();
  // In the US silence is a yes: nobody has to be asked, so that there may be no platform. One of the
  // TCF alone has to be heard.
  if (awaited)
    setTimeout(() => {
      if (!joinedGpp) {
        if (joined) awaited = "tcf";
        hear("gpp", true);
      }
    }, settings.wait);

  // Back from the browser's page cache without a cookie: it was taken back on another page.
  addEventListener("pageshow", (event) => event.persisted && !hasCookie() && apply(false));

  if (settings.consent == "ask" && state == null) {
    // This tab had its answer, and the server has neither taken the cookie away nor set one since.
    if (kept && kept > "0" === hasCookie()) {
      if (hasCookie()) apply(true);
    } else {
      // Another host's cookie is not seen from here: asked again, and with a yes told again.
      if (ORIGINS && kept > "0") keep((kept += " "));
      else keep();
      say({}, (response) => state == null && post.heed(response));
    }
  }
});
