// A network's forward pass in plain JavaScript. `oplas.web` writes the model as a list of steps; each step
// fills one array from others. `oplasProgram(model)` is a function from a list of numbers to the last array.

// The bytes behind base64 text.
const oplasBytes = (text) => {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const value = new Uint8Array(128);
  for (let i = 0; i < 64; i++) value[letters.charCodeAt(i)] = i;
  const out = new Uint8Array(text.length / 4 * 3), at = (i) => value[text.charCodeAt(i)];
  for (let i = 0, k = 0; i < text.length; i += 4) {
    const bits = at(i) << 18 | at(i + 1) << 12 | at(i + 2) << 6 | at(i + 3);
    out[k++] = bits >> 16;
    out[k++] = bits >> 8;
    out[k++] = bits;
  }
  return out;
};

// The number behind the 16 bits of a half-precision float.
const oplasHalf = (bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
};

// How stored weights become floats: as they are; from 16 bits; from 8 bits, 64 of them to one scale.
const oplasWeights = {
  float32: (bytes, from, n) => new Float32Array(bytes.buffer.slice(from, from + 4 * n)),
  int32: (bytes, from, n) => new Int32Array(bytes.buffer.slice(from, from + 4 * n)),
  float16: (bytes, from, n) => Float32Array.from(new Uint16Array(bytes.buffer.slice(from, from + 2 * n)), oplasHalf),
  int8: (bytes, from, n) => {
    const blocks = Math.ceil(n / 64), scale = new Float32Array(bytes.buffer.slice(from, from + 4 * blocks));
    const whole = new Int8Array(bytes.buffer, from + 4 * blocks, n);
    return Float32Array.from(whole, (v, i) => v * scale[i >> 6]);
  },
};

// The error function, right to seven digits (Abramowitz and Stegun 1964, 7.1.26).
const oplasErf = (x) => {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
};

// Functions of one, two or three numbers.
const oplasFunctions = {
  add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b,
  maximum: Math.max, minimum: Math.min, pow: Math.pow,
  clamp: (x, low, high) => Math.min(Math.max(x, low), high),
  neg: (x) => -x, exp: Math.exp, log: Math.log, sqrt: Math.sqrt, rsqrt: (x) => 1 / Math.sqrt(x), abs: Math.abs,
  sin: Math.sin, cos: Math.cos, tanh: Math.tanh, reciprocal: (x) => 1 / x, erf: oplasErf,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)), relu: (x) => Math.max(x, 0),
  gelu: (x) => x / 2 * (1 + oplasErf(x / Math.SQRT2)),
};

// y[t] += w[from + j · by] · x[at + j · apart + t · step] for each of so many rows j. It takes four rows at once, and
// so reads and writes y a quarter as often.
const oplasAddRows = (y, first, last, rows, { w, from, by }, { x, at, apart, step }) => {
  let j = 0;
  for (; j + 3 < rows; j += 4) {
    const v = from + j * by, a = w[v], b = w[v + by], c = w[v + 2 * by], d = w[v + 3 * by];
    for (let t = first, u = at + j * apart + t * step; t < last; t++, u += step) {
      y[t] += a * x[u] + b * x[u + apart] + c * x[u + 2 * apart] + d * x[u + 3 * apart];
    }
  }
  for (; j < rows; j++) {
    for (let t = first, u = at + j * apart + t * step; t < last; t++, u += step) y[t] += w[from + j * by] * x[u];
  }
};

// What a step may do. Each fills `out`; `x`, `w`, … are its arrays, the object its settings.
const oplasSteps = {
  // Numbers from other addresses: loops in loops, each [how often, how far], from `start`.
  move: (out, [x], { start, loops }) => {
    let at = 0;
    const go = (depth, from) => {
      const [count, step] = loops[depth];
      if (depth < loops.length - 1) for (let i = 0; i < count; i++) go(depth + 1, from + i * step);
      else for (let i = 0; i < count; i++) out[at++] = x[from + i * step];
    };
    go(0, start);
  },

  // Numbers from a list of addresses in all of the arrays together.
  gather: (out, [addresses, ...xs]) => {
    const all = new Float32Array(xs.reduce((n, x) => n + x.length, 0));
    xs.reduce((n, x) => (all.set(x, n), n + x.length), 0);
    for (let i = 0; i < out.length; i++) out[i] = all[addresses[i]];
  },

  // The rows of a table that the numbers name.
  rows: (out, [table, x], { width }) => {
    x.forEach((row, k) => out.set(table.subarray(Math.trunc(row) * width, (Math.trunc(row) + 1) * width), k * width));
  },

  // A function of the numbers at each place; a single number goes with all.
  map: (out, xs, { f, more }) => {
    const apply = oplasFunctions[f], [a, b] = xs;
    if (xs.length > 1) for (let i = 0; i < out.length; i++) out[i] = apply(a[i], b[i]);
    else for (let i = 0; i < out.length; i++) out[i] = apply(a[i], ...more);
  },

  // Matrices times matrices, and a bias: (batch, m, k) · (batch, k, n) + (n).
  matmul: (out, [x, w, bias], { batch, m, k, n }) => {
    for (let row = 0; row < batch * m; row++) {
      const y = out.subarray(row * n, (row + 1) * n), from = Math.floor(row / m) * k * n;
      bias ? y.set(bias) : y.fill(0);
      oplasAddRows(y, 0, n, k, { w: x, from: row * k, by: 1 }, { x: w, at: from, apart: n, step: 1 });
    }
  },

  // Convolution over time: (channels, frames) with filters (channels out, channels, taps).
  conv: (out, [x, w, bias], { channels, frames, taps, stride, padding, length }) => {
    for (let o = 0; o < out.length / length; o++) {
      const y = out.subarray(o * length, (o + 1) * length).fill(bias ? bias[o] : 0);
      for (let k = 0; k < taps; k++) {
        const shift = k - padding, first = Math.max(0, Math.ceil(-shift / stride));
        const last = Math.min(length, Math.floor((frames - 1 - shift) / stride) + 1);
        const filter = { w, from: o * channels * taps + k, by: taps };
        oplasAddRows(y, first, last, channels, filter, { x, at: shift, apart: frames, step: stride });
      }
    }
  },

  // Rows brought to mean 0 and variance 1, then scaled and shifted.
  norm: (out, [x, scale, shift], { width, eps }) => {
    for (let row = 0; row < x.length; row += width) {
      const part = x.subarray(row, row + width), mean = part.reduce((s, v) => s + v, 0) / width;
      const by = 1 / Math.sqrt(part.reduce((s, v) => s + (v - mean) ** 2, 0) / width + eps);
      for (let i = 0; i < width; i++) out[row + i] = (part[i] - mean) * by * (scale ? scale[i] : 1) + (shift ? shift[i] : 0);
    }
  },

  // Shares that add up to one.
  softmax: (out, [x], { width }) => {
    for (let row = 0; row < x.length; row += width) {
      const top = Math.max(...x.subarray(row, row + width)), part = out.subarray(row, row + width);
      for (let i = 0; i < width; i++) part[i] = Math.exp(x[row + i] - top);
      const sum = part.reduce((s, v) => s + v, 0);
      for (let i = 0; i < width; i++) part[i] /= sum;
    }
  },

  // One number for each row: its sum, mean, largest, or the place of its largest.
  reduce: (out, [x], { width, f }) => {
    for (let k = 0; k < out.length; k++) {
      const row = x.subarray(k * width, (k + 1) * width), sum = () => row.reduce((s, v) => s + v, 0);
      const top = () => row.reduce((s, v) => Math.max(s, v), -Infinity);
      out[k] = { sum, mean: () => sum() / width, amax: top, argmax: () => row.indexOf(top()) }[f]();
    }
  },
};

// A function from numbers to numbers: weights unpacked and arrays made once, then filled at each call.
const oplasProgram = ({ weights, tensors, steps, input, output }) => {
  const bytes = oplasBytes(weights), arrays = {};
  for (const [name, [kind, from, n]] of Object.entries(tensors)) arrays[name] = oplasWeights[kind](bytes, from, n);
  for (const { out, size } of steps) arrays[out] = new Float32Array(size);
  return (numbers) => {
    arrays[input] = Float32Array.from(numbers);
    for (const { op, out, from, ...settings } of steps) oplasSteps[op](arrays[out], from.map((name) => arrays[name]), settings);
    return arrays[output].slice();
  };
};
