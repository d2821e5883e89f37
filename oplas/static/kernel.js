// An engine whose answers come from Python. Without a kernel nobody answers, and after three seconds that is said.

const oplasKernel = (model) => async () => {
  const waiting = new Map();
  let last = 0;
  model.on("msg:custom", ({ id, error }, [numbers]) => {
    const answer = waiting.get(id);
    waiting.delete(id);
    answer?.(error, numbers && new Float32Array(numbers.buffer.slice(numbers.byteOffset, numbers.byteOffset + numbers.byteLength)));
  });
  const ask = (what, values) => new Promise((resolve, reject) => {
    waiting.set(++last, (error, numbers) => error ? reject(new Error(error)) : resolve(numbers));
    model.send({ id: last, what, values: Array.from(values) });
  });
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no kernel answers")), 3000));
  await Promise.race([ask("ready", []), late]);
  const sound = (values, take) => {
    let wanted = true;
    ask("decode", values).then((samples) => wanted && take(samples, true), (error) => take(new Float32Array(0), true, error.message));
    return () => { wanted = false; };
  };
  const encode = (samples) => ask("encode", samples);
  return { name: "the kernel", decode: (values) => ask("decode", values), sound, encode };
};

export default {
  render: ({ model, el }) => {
    el.innerHTML = model.get("page");
    const root = el.querySelector(".oplas-pad"), pad = oplasPad(root, JSON.parse(root.dataset.options), oplasKernel(model));
    return () => pad.close();
  },
};
