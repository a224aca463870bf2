// Keeps the page current without disturbing who reads it: a part that holds the focus or a text
// selection is left alone until it is let go, opened details stay open, a hidden tab asks nothing.
"use strict";
(() => {
  const PERIOD_MS = 2000;
  const PATIENCE_MS = 8000;
  const live = document.getElementById("live");
  if (!live || !window.fetch || !window.DOMParser) return;

  // Parts inside another part come first in neither list: a part is compared by its own innermost markup.
  const PARTS = ["part-headline", "part-notes", "part-revisions", "part-traffic", "part-nodes",
    "part-decision-rows", "part-history", "part-events", "part-clock"];
  let timer = 0;
  let running = false;

  function busy(element) {
    const focus = document.activeElement;
    if (focus && focus !== document.body && element.contains(focus)) return true;
    const selection = window.getSelection();
    return Boolean(selection && !selection.isCollapsed && element.contains(selection.anchorNode));
  }

  function replace(id, fresh) {
    const next = fresh.getElementById(id);
    const now = document.getElementById(id);
    if (!next || !now || busy(now)) return;
    for (const opened of now.querySelectorAll("details[open][id]")) {
      const same = next.querySelector(`#${CSS.escape(opened.id)}`);
      if (same) same.open = true;
    }
    if (next.outerHTML === now.outerHTML) return;
    const scrolled = [...now.querySelectorAll(".scroll, .refusal")].map((box) => [box.scrollLeft, box.scrollTop]);
    now.replaceWith(document.adoptNode(next));
    next.querySelectorAll(".scroll, .refusal").forEach((box, i) => {
      if (scrolled[i]) [box.scrollLeft, box.scrollTop] = scrolled[i];
    });
  }

  function lost(yes) {
    const sign = document.getElementById("lost");
    if (sign) sign.hidden = !yes;
    live.classList.toggle("stale", yes);
  }

  async function update() {
    if (running) return;
    running = true;
    try {
      const response = await fetch(`/live${window.location.search}`, {
        cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (!response.ok) throw new Error(String(response.status));
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      lost(false);
      PARTS.forEach((id) => replace(id, fresh));
      const headline = document.getElementById("part-headline");
      if (headline) document.title = `${headline.dataset.title} · NexoralDNS`;
    } catch {
      lost(true);
    } finally {
      running = false;
    }
  }

  async function loop() {
    window.clearTimeout(timer);
    if (!document.hidden) await update();
    window.clearTimeout(timer);
    if (!document.hidden) timer = window.setTimeout(loop, PERIOD_MS);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) loop(); });

  const filter = document.getElementById("filter");
  if (filter) {
    let pause = 0;
    const apply = () => {
      const wanted = filter.value.trim();
      window.history.replaceState(null, "", wanted ? `/?q=${encodeURIComponent(wanted)}` : "/");
      update();
    };
    filter.addEventListener("input", () => { window.clearTimeout(pause); pause = window.setTimeout(apply, 150); });
    filter.form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  }

  timer = window.setTimeout(loop, PERIOD_MS);
})();
