// The Worker's side: it takes a model's text once, and then answers questions. A stopped sound is not finished.

const oplasLoaded = (text) => {
  const { decode, encode, sound } = JSON.parse(text);
  return { decode: oplasProgram(decode), encode: encode && oplasProgram(encode), sound: sound && oplasSound(sound), ...sound };
};

const oplasWorker = (post) => {
  const stopped = new Set();
  let model = null;
  const finite = (numbers) => {
    if (!numbers.every(Number.isFinite)) throw new Error("the decoder gave NaN");
    return numbers;
  };

  // Blocks of a note as they are ready; between two, the Worker listens.
  const sing = async (id, values) => {
    for (const { samples, last } of model.sound.blocks(finite(model.decode(values)), model.frames, model.length)) {
      if (stopped.delete(id)) return;
      post({ id, block: samples, last });
      if (!last) await new Promise((next) => setTimeout(next));
    }
  };

  const answer = ({ id, text, decode, sound, encode }) => {
    if (text) return (model = oplasLoaded(text), post({ id }));
    if (decode) return post({ id, numbers: finite(model.decode(decode)) });
    if (encode) return post({ id, numbers: finite(model.encode(model.sound.picture(encode, model.frames))) });
    return sing(id, sound);
  };

  return async ({ data }) => {
    if (data.stop) return stopped.add(data.stop);
    try { await answer(data); } catch (error) { post({ id: data.id, error: error.message }); }
  };
};

if (typeof WorkerGlobalScope !== "undefined") onmessage = oplasWorker((message) => postMessage(message));
