// The view of bars: scores for each tick become tokens, tokens a piano roll, and a plucked string plays them.

// The likeliest token of each tick: 0 is the lowest pitch; the last two are "hold" and "rest".
const tokensOf = (scores, words) => Array.from({length: scores.length / words}, (_, tick) => {
  const row = scores.subarray(tick * words, (tick + 1) * words);
  return row.indexOf(row.reduce((most, v) => Math.max(most, v), -Infinity));
});

// Notes as [pitch, first tick, ticks]: a hold makes the one before it longer.
const notesOf = (tokens, words, low) => {
  const notes = [];
  let open = null;
  tokens.forEach((token, tick) => {
    if (token === words - 2) return open && open[2]++;
    open = token === words - 1 ? null : [low + token, tick, 1];
    if (open) notes.push(open);
  });
  return notes;
};

// A plucked string (Karplus and Strong 1983): noise in a loop that averages neighbours; the last 15 ms fade.
const pluckString = (out, from, length, pitch, rate) => {
  const period = rate / (440 * 2 ** ((pitch - 69) / 12)), whole = Math.floor(period - .5), rest = period - .5 - whole;
  const loop = Float32Array.from(normals(pitch, whole + 1), (v) => v / 4), fade = .015 * rate;
  for (let i = 0; i < length && from + i < out.length; i++) {
    const at = i % loop.length, next = (at + 1) % loop.length, y = loop[at];
    loop[at] = .996 * ((1 - rest / 2 - .25) * y + (.25 + rest / 2) * loop[next]);
    out[from + i] += y * Math.min(1, (length - i) / fade);
  }
};

// A bar as sound, two seconds at 120 quarter notes a minute.
const barSound = (notes, ticks, rate) => {
  const out = new Float32Array(2 * rate), tick = out.length / ticks;
  for (const [pitch, first, length] of notes) pluckString(out, Math.round(first * tick), Math.round(length * tick), pitch, rate);
  return out;
};

views.roll = (pad, {ticks, words, low}) => {
  const high = low + words - 3, wide = 16, tall = 4;
  const shown = element("canvas", {class: "oplas-picture", width: ticks * wide, height: (words - 2) * tall, role: "img"});
  const context = shown.getContext("2d");
  let notes = [];
  const draw = (scores) => {
    notes = notesOf(tokensOf(scores, words), words, low);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, shown.width, shown.height);
    context.fillStyle = "#404040";
    for (const [pitch, first, length] of notes) context.fillRect(first * wide, (high - pitch) * tall, length * wide - 3, tall);
    const said = notes.length ? notes.map(([pitch]) => noteName(pitch)).join(" ") : "silence";
    shown.setAttribute("aria-label", `${pad.label}: ${inWords(pad)}; ${said}`);
  };
  const face = (image) => image.decode().then(() => context.drawImage(image, 0, 0, shown.width, shown.height), () => {});
  if (window.AudioContext) pad.player = oplasPlayer(pad.sampleRate);
  const play = () => pad.player?.start(0, (take) => {
    take(barSound(notes, ticks, pad.sampleRate), true);
    return () => {};
  });
  return {shown, draw, face, play};
};
