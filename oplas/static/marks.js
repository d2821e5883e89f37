// A pad as a map: marks on the plane of the first two numbers, [x, y, value, words] each. The point is always on one.

const least = (marks, cost) => marks.reduce((best, mark) => cost(mark) < cost(best) ? mark : best);
const nearestMark = ({marks}, [x, y]) => least(marks, ([a, b]) => Math.hypot(a - x, b - y));

// The mark that an arrow leads to: the nearest within 45° of its way; if there is none, the nearest on that side.
const nextMark = ({marks, z}, [right, up]) => {
  const cost = ([a, b]) => {
    const along = (a - z[0]) * right + (b - z[1]) * up, across = Math.abs((a - z[0]) * up - (b - z[1]) * right);
    return along > 0 ? Math.hypot(along, across) + (across > along ? 1e9 : 0) : Infinity;
  };
  const next = least(marks, cost);
  return cost(next) < Infinity ? next : z;
};

// A value in words, with three digits.
const shortly = (value) => `${+value.toPrecision(3)}`.replace("-", "−");

// A field with a name, on which Enter and Space play.
const playedByKeys = (pad, field, name) => {
  field.setAttribute("role", "group");
  field.setAttribute("aria-label", name);
  field.addEventListener("keydown", (event) => {
    if (!["Enter", " "].includes(event.key) || !plain(event)) return;
    ours(event);
    sound(pad);
  });
};

// Put the marks on a field; what is returned stands below it: the words of the mark, and what the colours mean.
const markField = (pad, field) => {
  const {limit, marks} = pad, all = marks.map(([, , value]) => value), low = Math.min(...all), high = Math.max(...all);
  const across = (v) => `${50 + 50 * v / limit}%`;
  const dots = marks.map(([x, y, value]) => element("i", {
    style: `left: ${across(x)}; bottom: ${across(y)}; --value: ${100 * (value - low) / (high - low || 1)}%`}));
  field.prepend(element("div", {class: "oplas-marks", "aria-hidden": true}, ...dots));
  playedByKeys(pad, field, `map with ${marks.length} marks; arrow keys go from mark to mark, Enter plays`);
  const said = element("p", {class: "oplas-said", "aria-live": "polite"});
  pad.drawers.push(() => {
    const [, , value, words] = nearestMark(pad, pad.z), text = `${words} (${shortly(value)})`;
    if (said.textContent !== text) said.textContent = text;             // the same words are not read out again
  });
  const scale = element("span", {"aria-hidden": true});
  const range = [`${marks.length} marks, from ${shortly(low)} `, scale, ` to ${shortly(high)}`];
  return [said, element("p", {class: "oplas-scale"}, ...range)];
};
