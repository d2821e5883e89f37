// The view of bars: scores for each tick become tokens, tokens a piano roll, and a plucked string plays them.

// The likeliest token of each tick: 0 is the lowest pitch; the last two are "hold" and "rest".
const tokensOf = (scores, words) => Array.from({length: scores.length / words}, (_, tick) => {
  const row = scores.subarray(tick * words, (tick + 1) * words);
  return row.indexOf(row.reduce((most, v) => Math.max(most, v), -Infinity));
});

// Notes as [pitch, begin, end], in quarter notes: a hold makes the one before it longer. `times` are those of the ticks.
const notesOf = (tokens, words, low, times) => {
  const notes = [];
  let open = null;
  tokens.forEach((token, tick) => {
    if (token !== words - 2) open = token === words - 1 ? null : [low + token, times[tick], 0];
    if (!open) return;
    if (token !== words - 2) notes.push(open);
    open[2] = times[tick + 1];
  });
  return notes;
};

// A plucked string (Karplus and Strong 1983): noise in a loop that averages neighbours, so that its period is half a
// sample less than the loop. Reading it in slightly other steps puts it in tune. The last 15 ms fade.
const pluckString = (out, from, length, pitch, rate) => {
  const period = rate / (440 * 2 ** ((pitch - 69) / 12)), n = Math.round(period + .5), step = (n - .5) / period;
  const loop = normals(pitch, n).map((v) => v / 4);
  let k = 0, y = 0, next = 0;
  const advance = () => {
    [y, next] = [next, loop[k % n]];
    loop[k % n] = .998 * (loop[k % n] + loop[(k + 1) % n]) / 2;
    k++;
  };
  for (let i = 0; i < length && from + i < out.length; i++) {
    const at = Math.floor(i * step), between = i * step - at;
    while (k < at + 2) advance();              // y is sample `at` of the string, `next` the one after
    out[from + i] += (y + between * (next - y)) * Math.min(1, (length - i) / (.015 * rate));
  }
};

// A bar as sound, two seconds at 120 quarter notes a minute.
const barSound = (notes, quarters, rate) => {
  const out = new Float32Array(quarters / 2 * rate), at = (time) => Math.round(time / 2 * rate);
  for (const [pitch, begin, end] of notes) pluckString(out, at(begin), at(end) - at(begin), pitch, rate);
  return out;
};

views.roll = (pad, {words, low, times}) => {
  const high = low + words - 3, quarters = times.at(-1), wide = 96, tall = 4;
  const shown = element("canvas", {class: "oplas-picture", width: quarters * wide, height: (words - 2) * tall, role: "img"});
  const context = shown.getContext("2d");
  let notes = [];
  const draw = (scores) => {
    notes = notesOf(tokensOf(scores, words), words, low, times);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, shown.width, shown.height);
    context.fillStyle = "#404040";
    for (const [pitch, begin, end] of notes) context.fillRect(begin * wide, (high - pitch) * tall, (end - begin) * wide - 3, tall);
    const said = notes.length ? notes.map(([pitch]) => noteName(pitch)).join(" ") : "silence";
    shown.setAttribute("aria-label", `${pad.label}: ${inWords(pad)}; ${said}`);
  };
  const face = (image) => image.decode().then(() => context.drawImage(image, 0, 0, shown.width, shown.height), () => {});
  if (window.AudioContext) pad.player = oplasPlayer(pad.sampleRate);
  const play = () => pad.player?.start(0, (take) => {
    take(barSound(notes, quarters, pad.sampleRate), true);
    return () => {};
  });
  return {shown, draw, face, play};
};
