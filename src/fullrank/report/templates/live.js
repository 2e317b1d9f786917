"use strict";
// A page that is served follows its run: what changed is replaced, and the reader stays where he was.
(() => {
  const bar = document.querySelector(".live");
  const main = document.querySelector("main");
  const htmlOf = (parent) => [...parent.children].map((child) => child.outerHTML);
  let shown = htmlOf(main); // as it was served, before scripts and readers changed it
  let version = bar.dataset.version;
  let busy = false;
  let late = false;

  function tell(phase, said) {
    bar.dataset.phase = phase;
    const place = bar.querySelector(".said");
    if (place.textContent !== said) place.textContent = said; // a screen reader says it once
  }
  const stamp = () => { bar.querySelector(".when").textContent = `as of ${new Date().toLocaleTimeString()}`; };

  // what a reader did to a part: details, legends, sideways scrolling, focus
  const nameOf = (plot) => [plot.closest("figure, section").querySelector("h3, h2").textContent, ...Object.values(plot.dataset)].join("|");
  const keyOf = (key) => `${nameOf(key.closest(".plot"))}|${key.textContent.trim()}`;
  const titleOf = (details) => details.querySelector("summary").firstChild.textContent.trim();

  function keep(part) {
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    return {
      open: new Map([...part.querySelectorAll("details")].map((d) => [titleOf(d), d.open])),
      keys: new Map([...part.querySelectorAll("[data-key]")].map((k) => [keyOf(k), k.getAttribute("aria-pressed")])),
      left: [...part.querySelectorAll(".scroll, .wide-table")].map((box) => box.scrollLeft),
      focus: focused && [focused.tagName, focused.textContent.trim(), focused.closest(".plot") && nameOf(focused.closest(".plot"))],
    };
  }

  function restore(part, kept) {
    for (const details of part.querySelectorAll("details")) {
      if (kept.open.has(titleOf(details))) details.open = kept.open.get(titleOf(details));
    }
    for (const key of part.querySelectorAll("[data-key]")) {
      const before = kept.keys.get(keyOf(key));
      if (before && before !== key.getAttribute("aria-pressed")) key.click();
    }
    part.querySelectorAll(".scroll, .wide-table").forEach((box, k) => { box.scrollLeft = kept.left[k] || 0; });
    if (!kept.focus) return;
    const [tag, text, plot] = kept.focus;
    const same = [...part.querySelectorAll(tag)].find((one) => one.textContent.trim() === text
      && (one.closest(".plot") ? nameOf(one.closest(".plot")) : null) === plot);
    if (same) same.focus({ preventScroll: true });
  }

  // the heading that is nearest to the top of the window stays where it is
  const headings = () => [...main.querySelectorAll("h1, h2, h3, summary, .kind")];
  function anchor() {
    const first = headings().find((one) => one.getBoundingClientRect().bottom > 0) || main;
    const peers = headings().filter((one) => one.textContent === first.textContent);
    return { text: first.textContent, at: peers.indexOf(first), top: first.getBoundingClientRect().top };
  }
  function hold({ text, at, top }) {
    const same = headings().filter((one) => one.textContent === text)[at];
    if (same) scrollBy(0, same.getBoundingClientRect().top - top);
  }

  function replace(parsed) {
    const fresh = htmlOf(parsed);
    const here = scrollY > 0 ? anchor() : null;
    if (fresh.length === shown.length) {
      [...main.children].forEach((old, k) => {
        if (fresh[k] === shown[k]) return;
        const part = document.importNode(parsed.children[k], true);
        const kept = keep(old);
        old.replaceWith(part);
        window.fullrank.begin(part);
        restore(part, kept);
      });
    } else {
      const kept = keep(main);
      main.replaceChildren(...[...parsed.children].map((child) => document.importNode(child, true)));
      window.fullrank.begin(main);
      restore(main, kept);
    }
    if (here) hold(here);
    shown = fresh;
  }

  // text that is being selected, or a button that is being pressed, is not taken away
  let pressed = false;
  addEventListener("pointerdown", () => { pressed = true; });
  for (const ended of ["pointerup", "pointercancel"]) addEventListener(ended, () => { pressed = false; setTimeout(again, 50); });
  const inUse = () => pressed || (getSelection().rangeCount > 0 && !getSelection().isCollapsed);
  function again() { if (late && !inUse()) { late = false; update(); } }
  document.addEventListener("selectionchange", again);

  async function update() {
    if (busy || inUse()) { late = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      version = page.querySelector(".live").dataset.version;
      document.title = page.title;
      replace(page.querySelector("main"));
      stamp();
    } catch {
      late = true; // the server is gone, or comes back: the stream of events tells
    } finally {
      busy = false;
    }
  }

  const events = new EventSource(`/events/${bar.dataset.page}`);
  events.addEventListener("message", (event) => {
    const news = JSON.parse(event.data);
    tell(news.phase, news.said);
    if (news.version !== version) update();
  });
  events.addEventListener("error", () => tell("lost", "Nobody serves this page any more: this is the last that it showed"));
  document.documentElement.style.overflowAnchor = "none";
  stamp();
})();
