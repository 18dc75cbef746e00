// Keeps the page fresh: every half minute while it is looked at and nobody works in it. The server
// makes the page; this puts what changed of it in place. Without it the page works the same.
(() => {
  "use strict";
  const every = 30_000;
  const told = document.getElementById("fresh");
  const main = document.getElementById("content");
  document.documentElement.classList.add("scripted");
  let typed = false;

  // On a narrow page advice is folded; without this it is open there, too.
  const fold = (root) => {
    if (matchMedia("(max-width: 900px)").matches) root.querySelectorAll(".fold").forEach((one) => one.removeAttribute("open"));
  };
  fold(document);

  const isBusy = () => {
    const at = document.activeElement;
    return typed || main.dataset.still !== undefined || (main.contains(at) && at.closest("form"));
  };

  const refresh = async () => {
    if (document.hidden || isBusy()) return;
    let text;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      if (!answer.ok || answer.redirected) throw new Error(answer.status);
      text = await answer.text();
    } catch {
      say("not up to date: the site does not answer", true);
      return;
    }
    const fresh = new DOMParser().parseFromString(text, "text/html");
    if (isBusy()) return;
    for (const part of fresh.querySelectorAll("[data-live]")) {
      const old = document.getElementById(part.id);
      if (!old || old.isEqualNode(part)) continue;
      const at = document.activeElement;
      const focused = old.contains(at) ? at.id : "";
      const open = [...old.querySelectorAll("details[open][id]")].map((one) => one.id);
      const scrolled = [...old.querySelectorAll(".scroll")].map((one) => [one.scrollTop, one.scrollLeft]);
      if (old.contains(at) && !focused) continue;
      old.replaceWith(part);
      fold(part);
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
      [...part.querySelectorAll(".scroll")].forEach((one, place) => {
        [one.scrollTop, one.scrollLeft] = scrolled[place] ?? [0, 0];
      });
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    }
    const time = fresh.querySelector("footer time");
    if (time) document.querySelector("footer time")?.replaceWith(time);
    say("live", false);
  };

  const say = (text, failed) => {
    if (!told || told.textContent === text) return;
    told.textContent = text;
    told.hidden = false;
    told.classList.toggle("failed", failed);
  };

  document.addEventListener("input", () => { typed = true; });
  addEventListener("adroll-dashboard-refresh", refresh);
  if (main && document.querySelector("[data-live]")) {
    setInterval(refresh, every);
    document.addEventListener("visibilitychange", refresh);
    say("live", false);
  }

  // What a mark of a plot stands for, where the pointer is. Without this the browser shows it late.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  document.addEventListener("pointermove", (event) => {
    const title = event.target.closest?.(".bucket")?.querySelector("title");
    tip.hidden = !title;
    if (!title) return;
    const [first, ...others] = title.textContent.trim().split(/\s*\n\s*/);
    const head = document.createElement("b");
    head.textContent = first;
    tip.replaceChildren(head, ...others.map((text) => {
      const line = document.createElement("span");
      line.textContent = text;
      return line;
    }));
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8);
    tip.style.transform = `translate(${left}px, ${top}px)`;
  });

  // What an action does is said before it is done.
  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.ask ?? event.target.dataset.ask;
    if (question && !confirm(question)) event.preventDefault();
  });

  // A message for the developer is copied; without this it is marked and copied by hand.
  const show = () => document.querySelectorAll("[data-copy]").forEach((one) => { one.hidden = !navigator.clipboard; });
  show();
  document.addEventListener("toggle", show, true);
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });

  // A form that only chooses what is shown needs no button.
  document.addEventListener("change", (event) => {
    if (event.target.matches("form[data-auto] select")) event.target.form.requestSubmit();
  });
})();
