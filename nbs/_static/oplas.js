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
