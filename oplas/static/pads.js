// The last lines of what a page runs: every pad that stands there and is not yet built is built.

const oplasPads = () => {
  for (const root of document.querySelectorAll(".oplas-pad:not([data-built])")) {
    root.dataset.built = "";
    oplasPad(root, JSON.parse(root.dataset.options), () => oplasEngine(root));
  }
};
