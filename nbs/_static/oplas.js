// ipywidgets' page script speaks to MathJax 2 (`MathJax.Hub.Queue`), the book loads MathJax 3: give the new one the old door.
(() => {
  const Hub = { Queue: ([, , element]) => window.MathJax.startup?.promise?.then(() => window.MathJax.typesetPromise([element])) };
  const withHub = (value) => {
    if (value && !value.Hub) Object.defineProperty(value, "Hub", { value: Hub });
    return value;
  };
  let current = withHub(window.MathJax);
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: () => current,
    set: (value) => { current = withHub(value); },
  });
})();

// Sounds (`audio.oplas-sound`): one at a time, and a slider that brings a new one into view starts it when the handle is let go.
(() => {
  let sounding = null, held = null;
  document.addEventListener("play", ({ target }) => {
    if (!target.matches("audio.oplas-sound") || target === sounding) return;
    sounding?.pause();
    sounding = target;
  }, true);

  const inView = (control) => [...control.querySelectorAll("audio.oplas-sound")].filter((a) => a.getClientRects().length);
  const take = ({ target, repeat }) => {
    let control = !repeat && target.closest?.(".noUi-target");
    if (!control) return;
    for (let outer; (outer = control.parentElement?.closest(".jupyter-widgets")); ) control = outer;
    held = { control, before: inView(control) };
  };
  const letGo = () => {
    if (!held) return;
    const { control, before } = held;
    let last = null, frames = 30;             // half a second for the new panel to come and stay
    held = null;
    const look = () => {
      if (held) return;                       // the reader has moved on
      const fresh = inView(control).find((a) => !before.includes(a));
      if (fresh && fresh === last) fresh.play().catch(() => {});
      else if (frames--) requestAnimationFrame(look);
      last = fresh;
    };
    look();
  };
  addEventListener("pointerdown", take, true);
  addEventListener("keydown", take, true);
  addEventListener("pointerup", letGo, true);
  addEventListener("keyup", letGo, true);
})();

// A slider's handle is called what stands beside it, for readers who hear the page.
document.addEventListener("focusin", ({ target }) => {
  const label = target.matches(".noUi-handle") && target.closest(".widget-slider")?.querySelector(".widget-label");
  if (label) target.setAttribute("aria-label", label.textContent);
});
