// Keeps the page live: when something happens, fetch this page again and swap its content. Without this script the
// page is the same, only still.
"use strict";
(() => {
  const main = document.getElementById("main");
  if (!main || !window.EventSource || !window.fetch) return;
  let timer = null;
  // Milliseconds to the next look. The page of a large rack takes a while to be made: then it is asked for less often.
  let pause = 300;
  const unsaved = (field) => {
    if (field.matches("select")) {
      // Where the page marks no option as chosen, a list of one line has its first one that can be.
      const options = [...field.options];
      const marked = field.multiple || field.size > 1 || options.some((o) => o.defaultSelected);
      const first = options.find((o) => !o.disabled);
      return options.some((o) => o.selected !== (marked ? o.defaultSelected : o === first));
    }
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
    return field.type !== "hidden" && field.value !== field.defaultValue;
  };
  const refresh = async () => {
    timer = null;
    const begun = performance.now();
    try {
      const response = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
      if (!response.ok) return;
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("main");
      // Do not take a form away from under somebody's finger, nor close what they opened.
      const open = [...main.querySelectorAll("details")].map((d) => d.open);
      if (!fresh || main.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")) return;
      // Nor what somebody has written or chosen and left.
      if ([...main.querySelectorAll("input, textarea, select")].some(unsaved)) return;
      fresh.querySelectorAll("details").forEach((d, i) => { d.open = open[i] || false; });
      // A console that is open stays the same one.
      const screen = main.querySelector("#console");
      if (screen) fresh.querySelector("#console")?.replaceWith(screen);
      main.replaceChildren(...fresh.childNodes);
    } catch { /* the appliance restarts; the event source tells when it is back */ } finally {
      pause = Math.max(300, 4 * (performance.now() - begun));
    }
  };
  const soon = () => { timer ??= setTimeout(refresh, pause); };
  const slowly = () => { timer ??= setTimeout(refresh, 3 * pause); };
  const source = new EventSource(`/api/v1/events/stream?after=${document.body.dataset.after || ""}`);
  source.addEventListener("event", soon);
  // A run tells of progress that is no event, and messages of machines are none. The stream of a run ends with it, and must
  // then not be taken up again.
  const stream = document.getElementById("live")?.dataset.stream;
  if (stream) {
    const run = new EventSource(stream);
    run.addEventListener("log", slowly);
    run.addEventListener("run", (message) => { slowly(); if (JSON.parse(message.data).ended) run.close(); });
  }
  source.addEventListener("open", soon);
})();
