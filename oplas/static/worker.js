// The Worker's side: it takes a model's text once, and then answers questions. A stopped sound is not finished.

const oplasLoaded = (text) => {
  const { decode, encode, sound, first } = JSON.parse(text);
  return { decode: oplasProgram(decode), encode: encode && oplasProgram(encode), sound: sound && oplasSound(sound), first, ...sound };
};

// A sound of the reader's own, as the notes were that the encoder knows: with its peak at .9, and a silence before it.
const oplasNote = ({ length, skip }, samples) => {
  const peak = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 0), note = new Float32Array(length);
  note.set(samples.subarray(0, length - skip), skip);
  return note.map((x) => .9 * x / peak);
};

// A browser makes code quick once it has run for a while: a first block that nobody hears, twice.
const oplasWarm = ({ decode, sound, frames, length, first }) => {
  for (let k = 0; k < 2 && sound; k++) sound.blocks(decode(first), frames, length).next();
};

// A whole note at once, for those who can wait.
const oplasWhole = ({ decode, sound, frames, length }, values) => {
  const out = new Float32Array(length);
  let at = 0;
  for (const { samples } of sound.blocks(decode(values), frames, length)) (out.set(samples, at), at += samples.length);
  return out;
};

const oplasWorker = (post) => {
  const stopped = new Set();
  let model = null;
  const finite = (numbers) => {
    if (!numbers.every(Number.isFinite)) throw new Error("the decoder gave NaN");
    return numbers;
  };

  // Blocks of a note as they are ready, without the silence before the onset; between two, the Worker listens.
  // A decoder whose numbers are samples gives one block.
  const sing = async (id, values) => {
    const numbers = finite(model.decode(values));
    let skip = model.skip;
    if (!model.sound) return post({ id, block: numbers, last: true });
    for (const { samples, last } of model.sound.blocks(numbers, model.frames, model.length)) {
      if (stopped.delete(id)) return;
      const block = samples.slice(skip);
      if (skip) for (let i = 0; i < Math.min(64, block.length); i++) block[i] *= i / 64;
      skip = Math.max(0, skip - samples.length);
      post({ id, block, last });
      if (!last) await new Promise((next) => setTimeout(next));
    }
  };

  const answer = ({ id, text, decode, sound, encode }) => {
    if (text) return (model = oplasLoaded(text), oplasWarm(model), post({ id }));
    if (decode) return post({ id, numbers: finite(model.decode(decode)) });
    if (encode) return post({ id, numbers: finite(model.encode(model.sound.picture(oplasNote(model, encode), model.frames))) });
    return sing(id, sound);
  };

  return async ({ data }) => {
    if (data.stop) return stopped.add(data.stop);
    try { await answer(data); } catch (error) { post({ id: data.id, error: error.message }); }
  };
};

if (typeof WorkerGlobalScope !== "undefined") onmessage = oplasWorker((message) => postMessage(message));
