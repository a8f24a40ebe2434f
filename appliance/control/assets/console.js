// Shows a machine's serial console while its section is open: the text without what moves a cursor. Typing is the
// command line's.
"use strict";
(() => {
  if (!window.fetch || !window.TextDecoder) return;
  const KEPT = 100000;
  // Control sequences of ECMA-48 (5.4), operating system commands and single escapes.
  const MOVES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>()#][0-9A-Za-z]?)/g;
  let stop = null;
  const follow = async (screen) => {
    const stopper = new AbortController();
    stop = stopper;
    screen.textContent = "";
    let text = "";
    try {
      const response = await fetch(screen.dataset.from, { signal: stopper.signal, cache: "no-store" });
      if (!response.ok) { screen.textContent = (await response.json()).detail; return; }
      const reader = response.body.getReader();
      const words = new TextDecoder();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const low = screen.scrollHeight - screen.scrollTop - screen.clientHeight < 40;
        text = (text + words.decode(value, { stream: true })).replace(MOVES, "").replace(/\r+\n/g, "\n").slice(-KEPT);
        screen.textContent = text.replace(/[^\n]*\r(?!$)/g, "");
        if (low) screen.scrollTop = screen.scrollHeight;
      }
      screen.append("\n[the console ended]");
    } catch (error) {
      if (error.name !== "AbortError") screen.append(`\n[${error.message}]`);
    }
  };
  document.addEventListener("toggle", (event) => {
    const screen = event.target.matches?.("details.serial") && event.target.querySelector("#console");
    if (!screen) return;
    if (!event.target.open) { stop?.abort(); stop = null; } else if (!stop) { follow(screen); }
  }, true);
})();
