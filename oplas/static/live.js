// The page's side: what lies beside the page is fetched at the reader's first touch, and a Worker runs it.

// The text of a `.oplas-beside` element: inside it, or in the file that the book put beside the page. A script
// element fetches it, since a page that was opened as a file may not use `fetch`.
const oplasTexts = {};
const oplasBeside = (element) => {
  const { name, src } = element.dataset;
  const fetched = (resolve, reject) => {
    if (!src) return resolve(element.textContent);
    const script = document.createElement("script");
    window.oplasArrived = { ...window.oplasArrived, [name]: resolve };
    script.onerror = () => reject(new Error("the file beside the page could not be loaded"));
    script.src = src;
    document.head.append(script);
  };
  oplasTexts[name] ??= new Promise(fetched).catch((error) => { delete oplasTexts[name]; throw error; });
  return oplasTexts[name];
};

// Questions to a Worker and their answers, which carry the question's number.
const oplasAsk = (worker) => {
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data }) => waiting.get(data.id)?.(data);
  const failed = new Promise((resolve) => {
    worker.onerror = ({ message }) => {
      waiting.forEach((answer) => answer({ error: message || "the Worker stopped" }));
      resolve(new Error(message || "the Worker stopped"));
    };
  });
  const ask = (question, answer) => {
    waiting.set(++last, answer);
    worker.postMessage({ id: last, ...question });
    return last;
  };
  const once = (question) => new Promise((resolve, reject) => {
    const id = ask(question, ({ error, numbers }) => {
      waiting.delete(id);
      error ? reject(new Error(error)) : resolve(numbers);
    });
  });
  const stop = (id) => { if (waiting.delete(id)) worker.postMessage({ stop: id }); };
  return { ask, once, stop, failed, done: (id) => waiting.delete(id) };
};

// The decoder that lies in or beside `root`. Rejects if it cannot be loaded.
const oplasEngine = async (root) => {
  const part = (name) => oplasBeside(root.querySelector(`.oplas-beside[data-part=${name}]`));
  const [runtime, text] = await Promise.all([part("runtime"), part("model")]);
  const address = URL.createObjectURL(new Blob([runtime], { type: "text/javascript" }));
  const { ask, once, stop, failed, done } = oplasAsk(new Worker(address));
  await once({ text });
  return {
    failed,
    decode: (values) => once({ decode: values }),
    encode: (samples) => once({ encode: samples }),
    sound: (values, take) => {
      const id = ask({ sound: values }, ({ error, block, last }) => {
        if (error || last) done(id);
        take(block, last, error);
      });
      return () => stop(id);
    },
  };
};
