// An instrument over a latent space: XY pads, a piano, z as text, memory. What decodes is handed in as `engine`.

// An element: attributes, listeners (`onclick: f`), children.
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};
const button = (text, onclick, attributes = {}) => element("button", {type: "button", onclick, ...attributes}, text);

// A key that is no shortcut of the browser's; and an event that is ours, which nothing else on the page answers.
const plain = ({ctrlKey, altKey, metaKey}) => !ctrlKey && !altKey && !metaKey;
const ours = (event) => {
  event.preventDefault();
  event.stopPropagation();
};

// A coordinate within ±limit, to a hundredth, so that the text says all of it. (+ 0 turns -0 into 0.)
const tidy = (value, limit) => Math.round(100 * Math.max(-limit, Math.min(limit, value))) / 100 + 0;

// 57 is A3, 58 is A♯3.
const NAMES = "C C♯ D D♯ E F F♯ G G♯ A A♯ B".split(" ");
const noteName = (midi) => NAMES[midi % 12] + (Math.floor(midi / 12) - 1);

// The point as the engine takes it, as words, and as Python.
const values = (pad) => pad.notes ? [pad.midi, ...pad.z] : [...pad.z];
const words = (pad, axes) => axes.map((k) => `${pad.names[k]} ${pad.z[k].toFixed(2).replace("-", "−")}`).join(", ");
const inWords = (pad) => (pad.notes ? noteName(pad.midi) + ", " : "") + words(pad, pad.z.map((_, k) => k));
const asPython = (pad) => {
  const z = pad.z.map((v) => v.toFixed(2)).join(", ");
  return pad.notes ? `z = [${z}]; midi = ${pad.midi}` : `z = [${z}]`;
};

// Numbers as a point: dims of them, or a note before them. An Error says what came and what is accepted.
const asPoint = (pad, numbers, midi = pad.midi) => {
  const {dims, limit, names, notes} = pad;
  if (notes && numbers.length === dims + 1) [midi, ...numbers] = numbers;
  const wrong = numbers.findIndex((v) => !(Math.abs(v) <= limit));
  if (numbers.length !== dims) throw new Error(`${dims} numbers make a point, ${numbers.length} came`);
  if (wrong >= 0) throw new Error(`${names[wrong]} must be within ±${limit}, ${numbers[wrong]} came`);
  if (notes && !notes.includes(midi)) throw new Error(`midi must be ${notes[0]} … ${notes.at(-1)}, ${midi} came`);
  return {z: numbers.map((v) => tidy(v, limit)), midi};
};

// Text as a point: what `asPython` writes, or a plain list of numbers.
const readText = (pad, text) => {
  const [, midi] = text.match(/\b(?:midi|note)\s*=\s*([^\s;,]+)/) ?? [];
  const rest = text.replace(/\b(?:midi|note)\s*=\s*[^\s;,]+/, "").replace(/\bz\s*=/, "").replaceAll("−", "-");
  const parts = rest.split(/[\s,;[\]()]+/).filter(Boolean);
  const bad = [...parts, midi ?? "0"].find((part) => !Number.isFinite(+part));
  if (bad !== undefined) throw new Error(`“${bad}” is no number`);
  return asPoint(pad, parts.map(Number), midi === undefined ? pad.midi : +midi);
};

// n numbers from N(0, 1), the same for the same seed: xorshift, of Marsaglia (2003), and Box and Muller's two.
const normals = (seed, n) => {
  let state = (seed * 2654435761 + 88675123) >>> 0 || 1;
  const uniform = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + .5) / 2 ** 32;
  };
  for (let k = 0; k < 16; k++) uniform();          // near seeds part ways
  return Array.from({length: n}, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
};

// The line that is read out, and the line that says who answers.
const say = (pad, text) => { pad.status.textContent = text; };
const answers = (pad, who) => { pad.who.textContent = `Who answers: ${who}.`; };

// The ready-made face nearest to the point: all values count alike, a semitone as much as a whole step of z.
const nearestFace = (pad) => {
  const here = values(pad), away = (face) => Math.hypot(...face.values.map((v, k) => v - here[k]));
  return pad.faces.reduce((best, face) => !best || away(face) < away(best) ? face : best, null);
};
const readFaces = (root) => [...root.querySelectorAll(".oplas-faces [data-values]")].map((shown) => ({
  values: JSON.parse(shown.dataset.values),
  image: shown.matches("img") ? shown : shown.querySelector("img"),
  media: shown.matches("audio") ? shown : shown.querySelector("audio"),
  caption: shown.querySelector("figcaption")?.textContent ?? shown.alt ?? "",
}));

// Play or draw the nearest face, and name it.
const useFace = (pad, playing) => {
  const face = nearestFace(pad);
  if (!face) return;
  const until = pad.loading ? ", while the decoder loads" : "";
  answers(pad, `${pad.ready}${until}; the nearest is ${face.caption.trim()}`);
  if (face.image) pad.picture?.face?.(face.image);
  if (!playing || !face.media) return;
  for (const sound of document.querySelectorAll("audio.oplas-sound")) sound.pause();
  face.media.currentTime = 0;
  face.media.play().catch((error) => error.name === "AbortError" || say(pad, `No sound: ${error.message}`));
};

// The engine does not answer, or no more: say why, and go on with the faces.
const fail = (pad, error) => {
  const why = error?.message ?? error, left = pad.faces.length ? `${pad.ready} answer instead` : "nobody else can";
  say(pad, `The decoder does not answer (${why}); ${left}.`);
  Object.assign(pad, {live: null, loading: false});
  pad.ready = `${pad.faces.length ? pad.ready : "nobody"} (no decoder: ${why})`;
  answers(pad, pad.ready);
  useFace(pad, false);
};

// The reader's touch: the first one calls the engine, every one may let sound begin.
const wake = (pad) => {
  try { pad.player?.wake(); } catch { pad.player = null; }
  if (pad.asked) return;
  pad.asked = pad.loading = true;
  if (pad.view === "sound" && !pad.player) return fail(pad, "this browser has no Web Audio");
  answers(pad, `${pad.ready}, while the decoder loads`);
  pad.engine().then((live) => {
    Object.assign(pad, {live, loading: false});
    answers(pad, live.name ?? "the decoder, in this page");
    live.failed?.then((error) => fail(pad, error));                        // should it break later
    if (pad.drop) pad.drop.hidden = !live.encode;
    if (pad.held.size || (pad.heard && !pad.faces.length)) sound(pad);     // what waits to be heard
    show(pad);
  }).catch((error) => fail(pad, error));
};

// What an engine's numbers become, by the kind of view. A view has an element to show, draw(numbers), and, if it can,
// face(image), which draws a ready-made face, and play(), which sounds what was drawn last.
const views = {
  image: (pad, {height, width, low, high}) => {
    const shown = element("canvas", {class: "oplas-picture", width, height, role: "img"});
    const context = shown.getContext("2d");
    const draw = (numbers) => {
      const grey = new Uint8ClampedArray(4 * width * height).fill(255);
      numbers.forEach((v, k) => grey.fill(Math.round(255 * (v - low) / (high - low)), 4 * k, 4 * k + 3));
      context.putImageData(new ImageData(grey, width, height), 0, 0);
    };
    const face = (image) => image.decode().then(() => context.drawImage(image, 0, 0, width, height), () => {});
    return {shown, draw, face};
  },
};

// Show the point, and then play it. The engine is asked for one view at a time, then for where the point is by then.
const show = async (pad, playing = false) => {
  if (!pad.picture) return;
  pad.picture.shown.setAttribute("aria-label", `${pad.label}: ${inWords(pad)}`);
  Object.assign(pad, {wanted: values(pad), playing});
  if (!pad.live) return useFace(pad, playing);
  if (pad.decoding) return;
  pad.decoding = true;
  try {
    while (pad.wanted && pad.live) {
      const asked = pad.wanted;
      pad.wanted = null;
      pad.picture.draw(await pad.live.decode(asked));
    }
    if (pad.playing) pad.picture.play();
  } catch (error) {
    fail(pad, error);
  }
  pad.decoding = false;
};

// Sound the point, at a note if the pad has notes.
const sound = (pad, midi = pad.midi) => {
  if (midi !== pad.midi) place(pad, pad.z, midi);
  Object.assign(pad, {heard: asPython(pad), heardAt: performance.now()});
  tape(pad, {sounds: true});
  if (pad.picture) return pad.picture.play && show(pad, true);
  if (!pad.live) return useFace(pad, true);
  const point = values(pad);
  try {
    pad.player.start(midi, (take) => pad.live.sound(point, take));
  } catch (error) {
    fail(pad, error);
  }
};

// The point goes to z, on a map to the mark nearest to it (and to a note): all that shows it follows.
const place = (pad, to, midi = pad.midi) => {
  const z = pad.marks ? [...nearestMark(pad, to).slice(0, 2), ...to.slice(2)] : to;
  Object.assign(pad, {z, midi});
  for (const draw of pad.drawers) draw();
  pad.root.dispatchEvent(new CustomEvent("oplas-moved", {detail: {z, midi}}));
  tape(pad, {});
  show(pad);
};

// A moved point sounds again, with every note that is held: once it rests, and on its way six times a second at most.
const follow = (pad, rests) => {
  if (!rests && performance.now() - pad.heardAt < 1000 / 6) return;
  if (pad.heard === asPython(pad)) return;
  for (const midi of pad.held.size ? new Set(pad.held.values()) : [pad.midi]) sound(pad, midi);
};

// To a point and hear it: what buttons, text and files do.
const goTo = (pad, {z, midi}, why) => {
  place(pad, z, midi);
  sound(pad);
  say(pad, `${why}: ${inWords(pad)}`);
};

// Marks lie on the first pad.
const isMap = (pad, axes) => pad.marks && axes[0] === 0;

// One axis or two: a field to press, and a knob that holds a slider for each axis.
const xyPad = (pad, axes) => {
  const {limit, names} = pad;
  const sliders = axes.map((axis, k) => element("span", {role: "slider", tabindex: 0, "aria-label": names[axis],
    "aria-valuemin": -limit, "aria-valuemax": limit, "aria-orientation": k ? "vertical" : "horizontal"}));
  const knob = element("div", {class: "oplas-knob"}, ...sliders);
  const ends = [-limit, limit].map((end) => element("i", {}, `${end}`.replace("-", "−")));
  const field = element("div", {class: "oplas-field", style: `--cells: ${2 * limit}`}, knob);
  const move = (pair) => place(pad, pad.z.map((v, k) => axes.includes(k) ? tidy(pair[axes.indexOf(k)], limit) : v));
  pad.drawers.push(() => {
    const at = (k) => 50 + 50 * (pad.z[axes[k]] ?? 0) / limit;
    knob.style.left = `${at(0)}%`;
    knob.style.bottom = `${at(1)}%`;
    sliders.forEach((slider, k) => {
      slider.setAttribute("aria-valuenow", pad.z[axes[k]]);
      slider.setAttribute("aria-valuetext", words(pad, axes));
    });
  });
  byPointer(pad, field, sliders[0], move);
  byArrows(pad, field, axes, move);
  const titles = axes.map((axis, k) => element("b", {class: k ? "oplas-up" : "oplas-right"}, names[axis]));
  const cover = isMap(pad, axes) ? markField : pad.backdrop && axes[0] === 0 && heatField;
  const below = cover ? cover(pad, field) : [];
  const kind = cover ? "oplas-xy oplas-marked" : axes.length > 1 ? "oplas-xy" : "oplas-xy oplas-one";
  return element("div", {class: kind}, field, ...titles, ...ends, ...below);
};

// A finger, mouse or pen on the field: the point goes where it is.
const byPointer = (pad, field, slider, move) => {
  const goThere = ({clientX, clientY}) => {
    const box = field.getBoundingClientRect();
    move([(2 * (clientX - box.x) / box.width - 1) * pad.limit, (1 - 2 * (clientY - box.y) / box.height) * pad.limit]);
  };
  field.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    slider.focus({preventScroll: true});
    field.setPointerCapture(event.pointerId);
    Object.assign(pad, {heard: null, heardAt: -Infinity});
    goThere(event);
    follow(pad, false);
  });
  field.addEventListener("pointermove", (event) => {
    if (!field.hasPointerCapture(event.pointerId)) return;
    goThere(event);
    follow(pad, false);
  });
  field.addEventListener("lostpointercapture", () => follow(pad, true));
};

// Arrows go a thirtieth of the range to either side, with shift a tenth of that, or to the next mark; Home goes to zero.
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1], Home: [0, 0]};
const byArrows = (pad, field, axes, move) => {
  field.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS && plain(event))) return;
    ours(event);
    const step = pad.limit / (event.shiftKey ? 300 : 30), [right, up] = ARROWS[event.key];
    const by = axes.length > 1 ? [right, up] : [right + up];
    if (event.key === "Home") move(axes.map(() => 0));
    else move(isMap(pad, axes) ? nextMark(pad, by) : axes.map((axis, k) => pad.z[axis] + step * by[k]));
    follow(pad, false);
  });
  field.addEventListener("keyup", ({key}) => key in ARROWS && follow(pad, true));
};

// A key goes down or up; `by` is the finger, computer key or MIDI key that holds it.
const press = (pad, by, midi) => {
  if (pad.held.get(by) === midi) return;
  if (!pad.notes.includes(midi)) return say(pad, `${noteName(midi)} is not on this piano.`);
  pad.held.set(by, midi);
  sound(pad, midi);
  drawHeld(pad);
};
const release = (pad, by) => pad.held.delete(by) && drawHeld(pad);
const drawHeld = (pad) => {
  const down = new Set(pad.held.values());
  for (const [midi, key] of pad.keys) key.toggleAttribute("data-down", down.has(midi));
};

// The keys of a computer that lie as a piano's do, by their place; their letters on the piano's keys; z and x shift.
const ROW = "KeyA KeyW KeyS KeyE KeyD KeyF KeyT KeyG KeyY KeyH KeyU KeyJ KeyK KeyO KeyL KeyP".split(" ");
const shiftOctave = (pad, by) => {
  const octave = pad.octave + 12 * by;
  if (octave + 11 < pad.notes[0] || octave > pad.notes.at(-1)) return;
  pad.octave = octave;
  for (const [midi, key] of pad.keys) key.lastChild.textContent = ROW[midi - octave]?.at(-1).toLowerCase() ?? "";
  const first = pad.keys.get(Math.max(octave, pad.notes[0]));
  first.parentElement.scrollLeft = first.offsetLeft - 3;
};
const byComputerKeys = (pad) => {
  pad.root.addEventListener("keydown", (event) => {
    const {code, target, repeat} = event, shift = {KeyZ: -1, KeyX: 1}[code];
    if (!plain(event) || target.matches("input") || !(shift || ROW.includes(code))) return;
    ours(event);
    if (shift) shiftOctave(pad, shift);
    else if (!repeat) press(pad, code, pad.octave + ROW.indexOf(code));
  });
  pad.root.addEventListener("keyup", ({code}) => release(pad, code));
  pad.root.addEventListener("focusout", ({relatedTarget}) => {
    if (!pad.root.contains(relatedTarget)) ROW.forEach((code) => release(pad, code));
  });
};

// The piano: one stop of the Tab key; arrows go from key to key, Enter strikes; fingers press and slide.
const piano = (pad) => {
  pad.keys = new Map(pad.notes.map((midi) => [midi, pianoKey(pad, midi)]));
  const keys = element("div", {class: "oplas-piano", role: "group", "aria-label": "piano"}, ...pad.keys.values());
  const touch = (event, key) => key && keys.contains(key) && press(pad, event.pointerId, +key.dataset.midi);
  keys.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    event.target.closest("[data-midi]")?.focus({preventScroll: true});
    touch(event, event.target.closest("[data-midi]"));
  });
  const slide = (event) => pad.held.has(event.pointerId)
    && touch(event, document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-midi]"));
  const up = ({pointerId}) => release(pad, pointerId);
  listen(pad, {pointermove: slide, pointerup: up, pointercancel: up});
  keys.addEventListener("keydown", (event) => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key], next = pad.keys.get(+event.target.dataset.midi + by);
    if (!next || !plain(event)) return;
    ours(event);
    next.focus();
  });
  keys.addEventListener("focusin", ({target}) => {
    for (const key of pad.keys.values()) key.tabIndex = key === target ? 0 : -1;
  });
  return keys;
};

// A key of it. A click with no finger on it (`detail` is 0) is Enter, Space or a screen reader's.
const pianoKey = (pad, midi) => {
  const name = noteName(midi);
  const key = button("", ({detail}) => detail || sound(pad, midi), {"aria-label": name, "data-midi": midi,
    tabindex: midi === pad.midi ? 0 : -1, class: name[1] === "♯" ? "oplas-black" : "oplas-white"});
  key.append(element("span", {"aria-hidden": true}));
  return key;
};

// Beside the piano: which octave the computer's keys play (it scrolls into view on a phone), and a MIDI keyboard.
const pianoTools = (pad) => {
  pad.octave = pad.midi - pad.midi % 12;
  byComputerKeys(pad);
  const down = button("‹ octave (z)", () => shiftOctave(pad, -1), {"aria-label": "octave down"});
  const up = button("octave › (x)", () => shiftOctave(pad, 1), {"aria-label": "octave up"});
  const midi = button("MIDI", () => byMidi(pad), {title: "play from a MIDI keyboard"});
  return navigator.requestMIDIAccess ? [down, up, midi] : [down, up];
};

// Listeners on the window, for as long as the pad is there.
const listen = (pad, listeners) => {
  const {signal} = pad.gone;
  for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener, {signal});
};

// A MIDI keyboard, asked for when its button is pressed and not before.
const byMidi = async (pad) => {
  const heard = ({target, data: [status, midi, velocity]}) => {
    const by = `${target.id} ${midi}`, kind = status >> 4;
    if (pad.gone.signal.aborted) return;
    if (kind === 9 && velocity) press(pad, by, midi);
    else if (kind === 9 || kind === 8) release(pad, by);
  };
  try {
    const access = await navigator.requestMIDIAccess();
    const hook = () => access.inputs.forEach((input) => { input.onmidimessage = heard; });
    access.onstatechange = hook;
    hook();
    const names = [...access.inputs.values()].map((input) => input.name).join(", ");
    say(pad, names ? `MIDI from ${names}.` : "No MIDI keyboard yet: plug one in, it will be heard.");
  } catch (error) {
    say(pad, `No MIDI: ${error.message}`);
  }
};

// A field with its label: Enter or leaving it reads it; what cannot be read is named, and nothing changes.
const entry = (pad, label, input, read) => {
  input.addEventListener("change", () => {
    try {
      goTo(pad, read(input.value), label);
      input.removeAttribute("aria-invalid");
    } catch (error) {
      input.setAttribute("aria-invalid", true);
      say(pad, `${label}: ${error.message}; nothing changed.`);
    }
  });
  return element("label", {}, label, input);
};

// The point as text, to copy into code and to paste back.
const textTools = (pad) => {
  const input = element("input", {type: "text", spellcheck: false, autocomplete: "off", size: 12 + 7 * pad.dims});
  input.addEventListener("paste", () => setTimeout(() => input.dispatchEvent(new Event("change"))));
  pad.drawers.push(() => {
    input.value = asPython(pad);
    input.removeAttribute("aria-invalid");
  });
  const copy = async () => {
    input.select();
    const copied = await navigator.clipboard?.writeText(input.value).then(() => true, () => false);
    say(pad, copied ? "Copied." : "The text is selected: copy it with Ctrl+C or ⌘C.");
  };
  return [entry(pad, "Point", input, (text) => readText(pad, text)), button("Copy", copy)];
};

// A point by chance. The seed that is shown is the one that made it; a seed typed in makes its point again.
const chanceTools = (pad) => {
  const input = element("input", {type: "text", inputmode: "numeric", size: 6, value: 0});
  const drawn = (text) => {
    if (!/^\s*\d{1,9}\s*$/.test(text)) throw new Error(`0 … 999999999 is accepted, “${text}” came`);
    return {z: normals(+text, pad.dims).map((v) => tidy(v, pad.limit)), midi: pad.midi};
  };
  const next = () => {
    input.value = (+input.value + 1 || 0) % 1e9;
    input.dispatchEvent(new Event("change"));
  };
  return [button("Random", next), entry(pad, "Seed", input, drawn)];
};

// Remembered points, a button each; the ninth pushes out the oldest.
const memoryTools = (pad) => {
  const list = element("span", {role: "group", "aria-label": "remembered points"});
  let count = 0;
  const remember = () => {
    const point = {z: pad.z, midi: pad.midi}, text = asPython(pad), name = `Point ${++count}`;
    list.append(button(count, () => goTo(pad, point, name), {"aria-label": `${name}: ${inWords(pad)}`, title: text}));
    if (list.children.length > 8) list.firstChild.remove();
    say(pad, `Remembered as ${count}.`);
  };
  return [button("Remember", remember), list];
};

// Half a minute at most is recorded: every step is a time, a point, and whether it sounds.
const LONGEST = 30;
const tape = (pad, step) => pad.steps?.push({at: performance.now() - pad.since, z: pad.z, midi: pad.midi, ...step});
const startTape = (pad) => {
  endLoop(pad);
  Object.assign(pad, {steps: [], since: performance.now(), full: setTimeout(() => stopTape(pad), 1000 * LONGEST)});
  tape(pad, {});
  pad.record.setAttribute("aria-pressed", true);
  say(pad, `Recording moves and notes, ${LONGEST} seconds at most.`);
};
const stopTape = (pad) => {
  clearTimeout(pad.full);
  pad.recorded = {steps: pad.steps, length: Math.max(250, performance.now() - pad.since)};
  pad.steps = null;
  pad.loop.disabled = false;
  pad.record.setAttribute("aria-pressed", false);
  say(pad, `Recorded ${(pad.recorded.length / 1000).toFixed(1)} seconds. Loop plays them.`);
};
const startLoop = (pad) => {
  if (pad.steps) stopTape(pad);
  pad.loop.setAttribute("aria-pressed", true);
  runSteps(pad, pad.recorded, performance.now(), 0);
};
const endLoop = (pad) => {
  clearTimeout(pad.looping);
  pad.looping = null;
  pad.loop.setAttribute("aria-pressed", false);
};
const tapeTools = (pad) => {
  pad.record = button("Record", () => pad.steps ? stopTape(pad) : startTape(pad), {"aria-pressed": false});
  pad.loop = button("Loop", () => pad.looping ? endLoop(pad) : startLoop(pad), {"aria-pressed": false, disabled: ""});
  return [pad.record, pad.loop];
};

// Step k of a round that began at `since`, and in its time the next one.
const runSteps = (pad, recorded, since, k) => {
  const {steps, length} = recorded;
  if (k === steps.length) return runSteps(pad, recorded, since + length, 0);
  pad.looping = setTimeout(() => {
    const {z, midi, sounds} = steps[k];
    place(pad, z, midi);
    if (sounds) sound(pad);
    runSteps(pad, recorded, since, k + 1);
  }, since + steps[k].at - performance.now());
};

// A sound file as one channel of `length` samples at `sampleRate`, from just before its onset.
const readSound = async (file, sampleRate, length) => {
  if (file.size > 2e7) throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB, at most 20 are read`);
  const decoder = new OfflineAudioContext(1, 1, sampleRate);
  const heard = await decoder.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(`${file.name} is no sound that this browser can read`);
  });
  const channels = Array.from({length: heard.numberOfChannels}, (_, c) => heard.getChannelData(c));
  const mono = channels[0].map((_, k) => channels.reduce((sum, x) => sum + x[k], 0) / channels.length);
  const loudest = mono.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  if (loudest < 1e-4) throw new Error(`${file.name} is silent`);
  const onset = mono.findIndex((x) => Math.abs(x) > .05 * loudest) - Math.round(.005 * sampleRate);
  const cut = new Float32Array(length);
  cut.set(mono.slice(Math.max(0, onset)).slice(0, length));
  return cut;
};

// A sound of one's own, chosen or dropped: its code becomes the point.
const fileTools = (pad) => {
  const input = element("input", {type: "file", accept: ".wav,.mp3,.ogg,.flac,.m4a,.aac,.webm"});
  const encode = async (file) => {
    if (!file) return;
    try {
      say(pad, `Reading ${file.name} …`);
      const code = await pad.live.encode(await readSound(file, pad.sampleRate, pad.encode));
      if (!code) throw new Error(`the encoder finds no code for ${file.name}`);
      const held = code.some((v) => Math.abs(v) > pad.limit) ? `, held within ±${pad.limit}` : "";
      goTo(pad, asPoint(pad, [...code].map((v) => tidy(v, pad.limit))), file.name + held);
    } catch (error) {
      say(pad, `Your sound: ${error.message}; nothing changed.`);
    }
  };
  input.addEventListener("change", () => encode(input.files[0]).then(() => { input.value = ""; }));
  pad.drop = element("label", {class: "oplas-drop", hidden: ""}, "A sound of yours: drop it here or choose ", input);
  pad.drop.addEventListener("dragover", (event) => event.preventDefault());
  pad.drop.addEventListener("drop", (event) => {
    event.preventDefault();
    encode(event.dataTransfer.files[0]);
  });
  return pad.drop;
};

// What the reader does anywhere on the pad: a touch of a control wakes it, Escape ends all sound.
const byTouch = (pad) => {
  const controls = "button, input, label, .oplas-field";
  const touched = ({target}) => target.closest(controls) && wake(pad);
  for (const kind of ["pointerdown", "pointerup", "click", "paste", "drop"])
    pad.root.addEventListener(kind, touched, true);
  pad.root.addEventListener("keydown", ({key}) => {
    if (["Tab", "Shift", "Control", "Alt", "Meta"].includes(key)) return;
    if (key === "Escape") hushPad(pad);
    else wake(pad);
  }, true);
};
// When another sound of the page begins, a pad or a ready sound, the loop ends; the player sees to the voices.
const makeRoom = (pad) => {
  const {signal} = pad.gone;
  const ready = ({target}) => target.matches?.("audio.oplas-sound") && !pad.root.contains(target);
  document.addEventListener("play", (event) => ready(event) && endLoop(pad), {capture: true, signal});
  document.addEventListener("oplas-hush", ({detail}) => detail === pad.player || endLoop(pad), {signal});
};
const hushPad = (pad) => {
  endLoop(pad);
  pad.player?.stopAll();
  for (const {media} of pad.faces) media?.pause();
};

// The pieces of the instrument, in the order in which they stand.
const build = (pad) => {
  const row = (...children) => element("div", {class: "oplas-row"}, ...children);
  const firsts = pad.z.map((_, k) => k).filter((k) => k % 2 === 0);
  const pads = firsts.map((k) => xyPad(pad, k + 1 < pad.dims ? [k, k + 1] : [k]));
  const face = element("div", {class: "oplas-play"}, ...(pad.picture ? [pad.picture.shown] : []), row(...pads));
  if (pad.notes) face.append(piano(pad), row(...pianoTools(pad)));
  const again = !pad.notes && (pad.view === "sound" || pad.picture?.play) ? [button("Play", () => sound(pad))] : [];
  face.append(row(...again, ...textTools(pad)), row(...chanceTools(pad), ...memoryTools(pad), ...tapeTools(pad)));
  if (pad.encode) face.append(fileTools(pad));
  face.append(pad.status, pad.who);
  pad.root.append(face);
};

// What the page has before anybody touches it steps aside; JupyterLab's shortcuts do not reach into the pad.
const takeOver = (root, label) => {
  for (const faces of root.querySelectorAll(".oplas-faces")) faces.hidden = true;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", label);
  root.setAttribute("data-lm-suppress-shortcuts", "true");
};

// Build the instrument into `root`. `start`: laid out as the engine's values; `engine`: called at the first touch.
const oplasPad = (root, options, engine) => {
  const {label, dims, notes, sampleRate, view = "sound", limit = 3} = options;
  const start = options.start ?? [...(notes ? [notes[notes.length >> 1]] : []), ...Array(dims).fill(0)];
  const pad = {...options, root, engine, view, limit, z: start.slice(-dims), midi: notes && start[0],
    faces: readFaces(root), drawers: [], held: new Map(), heardAt: -Infinity, gone: new AbortController(),
    status: element("p", {role: "status"}), who: element("p", {class: "oplas-who"})};
  const ready = view === "sound" ? "precomputed sounds" : "precomputed pictures";
  pad.ready = pad.faces.length ? ready : "nobody yet";
  const sounding = (ms) => root.dispatchEvent(new CustomEvent("oplas-sounding", {detail: {ms}}));
  if (view === "sound" && window.AudioContext) pad.player = oplasPlayer(sampleRate, sounding);
  if (view !== "sound") pad.picture = views[view.kind](pad, view);
  takeOver(root, label);
  build(pad);
  byTouch(pad);
  makeRoom(pad);
  if (notes) shiftOctave(pad, 0);
  answers(pad, `${pad.ready}, until you touch the pad`);
  place(pad, pad.z);
  const close = () => {
    hushPad(pad);
    pad.player?.close();
    pad.gone.abort();
  };
  return {place: (z, midi) => place(pad, z, midi), values: () => values(pad), close};
};
