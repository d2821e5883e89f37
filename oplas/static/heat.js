// A plane in colours behind a field: name → {values, unit}, rows of values from the lowest up, one a cell. A button
// for each name chooses what the colours show.

// The colours of the lowest to the highest, with even steps between them: viridis, as on a map of marks.
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const colourOf = (share) => {
  const k = Math.min(3, Math.floor(4 * share)), part = 4 * share - k;
  return VIRIDIS[k].map((v, c) => v + part * (VIRIDIS[k + 1][c] - v));
};

const withUnit = (value, unit) => `${shortly(value)}${unit && ` ${unit}`}`;
const rangeOf = (values) => [Math.min(...values.flat()), Math.max(...values.flat())];

// Where a value lies, in words: the place of the middle of its cell.
const cellOf = (pad, values, value) => {
  const row = values.findIndex((line) => line.includes(value)), column = values[row].indexOf(value);
  const middle = (k, n) => shortly(pad.limit * ((2 * k + 1) / n - 1));
  return `${middle(column, values[0].length)}, ${middle(row, values.length)}`;
};

// One pixel a cell; the browser makes it as large as the field.
const paint = (canvas, values, [low, high]) => {
  const rows = values.length, columns = values[0].length;
  Object.assign(canvas, {width: columns, height: rows});
  const brush = canvas.getContext("2d"), picture = brush.createImageData(columns, rows);
  [...values].reverse().flat().forEach((v, k) => picture.data.set([...colourOf((v - low) / (high - low || 1)), 255], 4 * k));
  brush.putImageData(picture, 0, 0);
};

// The value of the cell in which the point lies.
const cellValue = ({limit, z: [x, y]}, values) => {
  const at = (v, n) => Math.min(n - 1, Math.floor(n * (v / limit + 1) / 2));
  return values[at(y, values.length)][at(x, values[0].length)];
};

// Put the plane on a field; what is returned stands below it: the value at the point, what the colours mean, buttons.
const heatField = (pad, field) => {
  const canvas = element("canvas", {class: "oplas-heat", role: "img"}), names = Object.keys(pad.backdrop);
  const said = element("p", {class: "oplas-said", "aria-live": "polite"}), scale = element("p", {class: "oplas-scale"});
  const buttons = names.map((name) => button(name, () => showName(name)));
  let shown = names[0];
  const draw = () => {
    const {values, unit} = pad.backdrop[shown], text = `${shown} ${withUnit(cellValue(pad, values), unit)}`;
    if (said.textContent !== text) said.textContent = text;
  };
  const showName = (name) => {
    const {values, unit} = pad.backdrop[shown = name], range = rangeOf(values), [low, high] = range;
    const ends = range.map((v) => `${withUnit(v, unit)} at (${cellOf(pad, values, v)})`);
    canvas.setAttribute("aria-label", `${name}: lowest ${ends[0]}, highest ${ends[1]}`);
    paint(canvas, values, range);
    scale.replaceChildren(`${name}, from ${shortly(low)} `, element("span", {"aria-hidden": true}), ` to ${withUnit(high, unit)}`);
    buttons.forEach((one, k) => one.setAttribute("aria-pressed", names[k] === name));
    draw();
  };
  field.prepend(canvas);
  playedByKeys(pad, field, "plane in colours; arrow keys move the point, Enter plays");
  pad.drawers.push(draw);
  showName(shown);
  const choice = element("p", {class: "oplas-row", role: "group", "aria-label": "what the colours show"}, ...buttons);
  return names.length > 1 ? [said, scale, choice] : [said, scale];
};
