// Log-mel pictures to sound and back, with the numbers of oplas.audio. Only arithmetic: it runs in a Worker, in
// node, and in V8 from Python. It needs FFT, of fft.js. Spectra lie frame after frame, each number's real part
// before its imaginary part; pictures lie row after row.

const oplasSound = (() => {
  'use strict';

  // An error that names what is wrong, what came, and what is accepted.
  const refuse = (name, got, accepted) => {
    throw new RangeError(`${name} must be ${accepted}, got ${got}`);
  };

  const whole = (name, x, least) => {
    if (!Number.isInteger(x) || x < least) refuse(name, x, `a whole number from ${least} on`);
    return x;
  };

  // The mel filters bin by bin, each divided by its norm so that wide ones count as narrow ones: bin k lies in
  // row low[k] with weight down[k], and in the next row with weight up[k]. Rows i and i + 1 share side[i].
  const filterBank = (rows, bins) => {
    const low = new Int32Array(bins).fill(-1), down = new Float64Array(bins), up = new Float64Array(bins);
    const norm = rows.map(({weights}) => Math.sqrt(weights.reduce((sum, w) => sum + w * w, 0)));
    const side = new Float64Array(rows.length + 1);
    rows.forEach(({start, weights}, row) => weights.forEach((weight, i) => {
      const k = start + i, first = low[k] < 0;
      if (!first && low[k] != row - 1) refuse(`rows[${row}]`, `bin ${k}`, `in ${bins} bins, two rows to a bin`);
      if (first) low[k] = row;
      (first ? down : up)[k] = weight / norm[row];
      side[low[k]] += down[k] * up[k];
    }));
    return {low: low.map((row) => Math.max(row, 0)), down, up, norm, side, n: rows.length};
  };

  // The filters A applied to the magnitudes y of a frame, into `mel`, a number for each row.
  const filtered = ({low, down, up}, y, mel) => {
    mel.fill(0);
    for (let k = 0; k < y.length; k++) {
      mel[low[k]] += down[k] * y[k];
      mel[low[k] + 1] += up[k] * y[k];
    }
  };

  // Solves A Aᵀ s = mel. Only rows side by side share bins, so the matrix has ones on its diagonal and `side`
  // next to it, and Gauss's elimination goes down once and up once (Thomas).
  const tridiagonal = ({side, n}) => {
    const pivot = new Float64Array(n).fill(1);
    for (let i = 1; i < n; i++) pivot[i] -= side[i - 1] ** 2 / pivot[i - 1];
    if (!pivot.every((p) => p > 1e-6)) refuse('rows', 'one that follows from others', 'independent filters');
    return (mel, s) => {
      s[0] = mel[0];
      for (let i = 1; i < n; i++) s[i] = mel[i] - side[i - 1] / pivot[i - 1] * s[i - 1];
      s[n - 1] /= pivot[n - 1];
      for (let i = n - 2; i >= 0; i--) s[i] = (s[i] - side[i] * s[i + 1]) / pivot[i];
    };
  };

  // mel_to_linear for one frame: magnitudes x, 0 or more, that the filters turn into `mel`. From the clipped
  // pseudo-inverse Aᵀ(A Aᵀ)⁻¹ mel, 20 steps of accelerated projected gradient.
  const melInversion = (bank, bins) => {
    const {low, down, up, side, n} = bank, solve = tridiagonal(bank), y = new Float64Array(bins);
    const rest = new Float64Array(n + 1), got = new Float64Array(n + 1);
    const step = 1 / side.reduce((most, s, i) => Math.max(most, 1 + s + (i ? side[i - 1] : 0)), 0);
    const back = (k) => down[k] * rest[low[k]] + up[k] * rest[low[k] + 1];  // Aᵀ times `rest`
    return (mel, x) => {
      solve(mel, rest);
      for (let k = 0; k < bins; k++) x[k] = y[k] = Math.max(0, back(k));
      for (let round = 0; round < 20; round++) {
        filtered(bank, y, got);
        for (let i = 0; i < n; i++) rest[i] = got[i] - mel[i];
        for (let k = 0; k < bins; k++) {
          const old = x[k];
          x[k] = Math.max(0, y[k] - step * back(k));
          y[k] = old + (1 + round / (round + 3)) * (x[k] - old);
        }
      }
    };
  };

  // Sound to spectra and back. Two frames, f and g, go through one complex transform, as its real and its
  // imaginary part; a last frame without a partner goes with itself.
  const transforms = (nFft, hop) => {
    const fft = new FFT(nFft), bins = nFft / 2 + 1, wave = new Float64Array(2 * nFft), both = wave.slice();
    // Hann's window, scaled so that a sine of amplitude 1 has a peak of magnitude 1.
    const window = Float64Array.from({length: nFft}, (_, i) => (1 - Math.cos(2 * Math.PI * i / nFft)) * 2 / nFft);
    const pairs = (frames, use) => {
      for (let f = 0; f < frames; f += 2) use(f, Math.min(f + 1, frames - 1));
    };
    // The spectra of so many frames of x, into c.
    const analyse = (x, c, frames) => pairs(frames, (f, g) => {
      for (let i = 0; i < nFft; i++) {
        wave[2 * i] = x[f * hop + i] * window[i];
        wave[2 * i + 1] = x[g * hop + i] * window[i];
      }
      fft.transform(both, wave);
      for (let k = 0, a = 2 * f * bins, b = 2 * g * bins; k < bins; k++, a += 2, b += 2) {
        const p = 2 * k, q = k ? 2 * (nFft - k) : 0;
        c[a] = (both[p] + both[q]) / 2;
        c[a + 1] = (both[p + 1] - both[q + 1]) / 2;
        c[b] = (both[p + 1] + both[q + 1]) / 2;
        c[b + 1] = (both[q] - both[p]) / 2;
      }
    });
    // The sound of so many spectra c, added to x where the frames lie.
    const add = (c, x, frames) => pairs(frames, (f, g) => {
      for (let k = bins - 1, a = 2 * f * bins, b = 2 * g * bins; k >= 0; k--) {
        const p = 2 * k, q = 2 * (nFft - k) % (2 * nFft), edge = p == q;  // an edge has no imaginary part
        const ar = c[a + p], ai = edge ? 0 : c[a + p + 1], br = c[b + p], bi = edge ? 0 : c[b + p + 1];
        both[q] = ar + bi;
        both[q + 1] = br - ai;
        both[p] = ar - bi;
        both[p + 1] = br + ai;
      }
      fft.inverseTransform(wave, both);
      for (let i = 0; i < nFft; i++) x[f * hop + i] += wave[2 * i] * window[i];
      for (let i = 0; i < nFft && g > f; i++) x[g * hop + i] += wave[2 * i + 1] * window[i];
    });
    return {analyse, add, window, bins, nFft, hop};
  };

  // How far the phase of the peak at bin k turns in a hop; its frequency is where a parabola has its top.
  const turnOf = (level, k, hop) => {
    const left = level[k - 1], right = level[k + 1];
    const top = Math.fround(.5 * (left - right) / Math.min(left - 2 * level[k] + right, -1e-9));
    return Math.fround(Math.fround(k + top) * Math.fround(Math.PI * hop / (level.length - 1)));
  };

  // _from_peaks for one frame: each bin's phase goes on with its nearest peak's, in 32 bits as there. `phase`
  // moves on; the spectrum goes into c.
  const goOn = (size, phase, c, hop) => {
    const bins = size.length, level = size.map((s) => Math.log(Math.max(s, 1e-20))), peaks = [];
    for (let k = 1; k < bins - 1; k++) {
      if (level[k] >= level[k - 1] && level[k] > level[k + 1]) peaks.push(k);
    }
    const centres = peaks.length ? peaks : [0, bins - 1];  // without a peak nothing turns
    for (let i = 0, k = 0; i < centres.length; i++) {
      const end = i + 1 < centres.length ? (centres[i] + centres[i + 1]) >> 1 : bins - 1;
      const next = Math.fround(phase[centres[i]] + (peaks.length ? turnOf(level, centres[i], hop) : 0));
      const angle = next % Math.fround(2 * Math.PI), real = Math.cos(angle), imaginary = Math.sin(angle);
      for (; k <= end; k++) {
        const signed = k % 2 ? -size[k] : size[k];  // phase 0 is an impulse in the middle of the frame
        phase[k] = next;
        c[2 * k] = signed * real;
        c[2 * k + 1] = signed * imaginary;
      }
    }
  };

  // Spectra `now` after a round and `last` of the round before: overshot, then brought to their sizes, into c.
  const overshoot = (c, now, last, size, count, momentum) => {
    for (let k = 0, i = 0; k < count; k++, i += 2) {
      const real = now[i] + momentum * (now[i] - last[i]);
      const imaginary = now[i + 1] + momentum * (now[i + 1] - last[i + 1]);
      const scale = size[k] / Math.sqrt(real * real + imaginary * imaginary + 1e-30);
      c[i] = real * scale;
      c[i + 1] = imaginary * scale;
    }
  };

  // Parts of a sound, one after another.
  const joined = (parts) => {
    const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
    return all;
  };

  // GriffinLimStream: sound while the magnitudes still come. What waits are the frames' sizes and, of the first
  // `known`, spectra c with phases so far; `tail` and `weight` are sound and squared windows that reach in.
  const griffinLim = ({analyse, add, window, bins, nFft, hop}, {block, lookAhead, rounds, momentum = .99}) => {
    const most = whole('block', block, 1) + whole('lookAhead', lookAhead, 1);
    whole('rounds', rounds, 0);
    if (!(momentum >= 0 && momentum < 2)) refuse('momentum', momentum, 'a number from 0 to under 2');
    const size = new Float32Array(most * bins), phase = new Float32Array(bins);
    const c = new Float32Array(2 * most * bins);
    let now = c.slice(), last = c.slice(), waiting, known, before, tail, weight;

    // Forget all that was pushed. `before` counts the samples to come that lie before time 0.
    const reset = () => {
      [waiting, known, before] = [0, 0, nFft / 2];
      [tail, weight] = [new Float64Array(nFft - hop), new Float64Array(nFft - hop)];
    };

    // Phases to start from, for the waiting frames that have none.
    const start = () => {
      phase.fill(0);
      for (let k = 0, i = 2 * (known - 1) * bins; known && k < bins; k++, i += 2) {
        phase[k] = Math.atan2(c[i + 1], c[i]) - Math.PI * (k % 2);
      }
      for (let f = known; f < waiting; f++) {
        goOn(size.subarray(f * bins, (f + 1) * bins), phase, c.subarray(2 * f * bins), hop);
      }
    };

    // Squared windows added up over so many frames, with what reaches in.
    const cover = (frames) => {
      const out = new Float64Array((frames - 1) * hop + nFft);
      out.set(weight);
      for (let f = 0; f < frames; f++) {
        for (let i = 0; i < nFft; i++) out[f * hop + i] += window[i] ** 2;
      }
      return out;
    };

    // The sound of so many frames, with what reaches in.
    const overlapAdd = (frames, x) => {
      x.fill(0);
      x.set(tail);
      add(c, x, frames);
      return x;
    };

    // Phases in better accord, round after round.
    const refine = (scale) => {
      const x = new Float64Array(scale.length);
      for (let round = 0; round < rounds; round++) {
        overlapAdd(waiting, x);
        for (let i = 0; i < x.length; i++) x[i] *= scale[i];
        analyse(x, now, waiting);
        overshoot(c, now, round ? last : now, size, waiting * bins, momentum);
        [now, last] = [last, now];
      }
    };

    // Finds phases for all frames that wait; the sound of the first `count` is finished, the others wait on.
    const finish = (count) => {
      const end = count == waiting, ready = count * hop + (end ? nFft / 2 - hop : 0), all = cover(waiting);
      const least = 1e-6 * all.reduce((a, b) => Math.max(a, b));
      const scale = all.map((v) => 1 / Math.max(v, least)).fill(0, 0, before);
      if (end) scale.fill(0, ready);
      start();
      refine(scale);
      const done = cover(count), x = overlapAdd(count, new Float64Array(done.length));
      const out = Float32Array.from(x.subarray(before, ready), (v, i) => v * scale[before + i]);
      [tail, weight] = [x.slice(count * hop), done.slice(count * hop)];
      size.copyWithin(0, count * bins);
      c.copyWithin(0, 2 * count * bins);
      waiting = known = waiting - count;
      before = Math.max(0, before - ready);
      return out;
    };

    // Takes in frames, and gives the samples that are finished, often none.
    const push = (magnitudes) => {
      const frames = magnitudes.length / bins, out = [];
      if (!Number.isInteger(frames)) refuse('magnitudes', magnitudes.length, `${bins} numbers for each frame`);
      if (!magnitudes.every((m) => m >= 0 && m < Infinity)) refuse('magnitudes', 'others', 'finite, 0 or more');
      for (let f = 0; f < frames; f++) {
        size.set(magnitudes.subarray(f * bins, (f + 1) * bins), waiting++ * bins);
        if (waiting == most) out.push(finish(block));
      }
      return joined(out);
    };

    // The rest, to the middle of the last frame; then ready for the next note.
    const flush = () => {
      const out = waiting ? finish(waiting) : new Float32Array(0);
      reset();
      return out;
    };
    reset();
    return {push, flush};
  };

  // The settings are those of LogMel; `rows` are its filters, each its first bin and the weights from there.
  return ({nFft, hop, floor, top, rows}) => {
    if (!(nFft >= 4 && Number.isInteger(Math.log2(nFft)))) refuse('nFft', nFft, 'a power of two from 4 on');
    if (nFft % whole('hop', hop, 1) || nFft < 4 * hop) refuse('hop', hop, `in ${nFft} 4 times or more`);
    if (!(floor > 0 && top > 0 && floor + top < Infinity)) refuse('floor and top', [floor, top], 'above 0');
    const turn = transforms(nFft, hop), bins = turn.bins, n = rows.length;
    const bank = filterBank(rows, bins), invert = melInversion(bank, bins), mel = new Float64Array(n + 1);

    // Magnitudes of the frames from one to before another: LogMel.inverse, then mel_to_linear.
    const magnitudes = (picture, frames, from, to) => {
      if (picture.length != n * whole('frames', frames, 1)) refuse('picture', picture.length, `${n} × ${frames}`);
      if (whole('to', to, whole('from', from, 0)) > frames) refuse('to', to, `${frames} at most`);
      const out = new Float32Array((to - from) * bins);
      for (let f = from; f < to; f++) {
        for (let i = 0; i < n; i++) {
          const x = picture[i * frames + f];
          if (!Number.isFinite(x)) refuse('picture', x, 'finite');
          mel[i] = floor * Math.expm1(Math.max(0, x + 1) * top / 2) / bank.norm[i];
        }
        invert(mel, out.subarray((f - from) * bins, (f - from + 1) * bins));
      }
      return out;
    };

    // LogMel.forward: the picture of a sound's first frames; frame k has its middle at sample k * hop.
    const picture = (samples, frames) => {
      const x = new Float64Array(nFft + (whole('frames', frames, 1) - 1) * hop), y = new Float64Array(bins);
      const c = new Float32Array(2 * frames * bins), out = new Float32Array(n * frames);
      x.set(samples.subarray(0, x.length - nFft / 2), nFft / 2);
      turn.analyse(x, c, frames);
      for (let f = 0; f < frames; f++) {
        for (let k = 0, i = 2 * f * bins; k < bins; k++, i += 2) y[k] = Math.sqrt(c[i] ** 2 + c[i + 1] ** 2);
        filtered(bank, y, mel);
        for (let i = 0; i < n; i++) {
          out[i * frames + f] = 2 / top * Math.log1p(mel[i] * bank.norm[i] / floor) - 1;
        }
      }
      return out;
    };

    const stream = (settings) => griffinLim(turn, settings);

    // A picture's sound, `length` samples in all, block by block: the first is heard while others are made.
    function* blocks(picture, frames, length, {block = 16, lookAhead = 4, rounds = 10} = {}) {
      const voice = stream({block, lookAhead, rounds});
      let left = whole('length', length, 1);
      for (let from = 0, to; from < frames; from = to) {
        to = Math.min(frames, from + block + (from ? 0 : lookAhead));
        const samples = voice.push(magnitudes(picture, frames, from, to)).subarray(0, left);
        left -= samples.length;
        if (samples.length) yield {samples, last: false};
      }
      const rest = new Float32Array(left);
      rest.set(voice.flush().subarray(0, left));
      yield {samples: rest, last: true};
    }

    // The same, handed to `take(samples, last)`.
    const play = (picture, frames, length, settings, take) => {
      for (const {samples, last} of blocks(picture, frames, length, settings)) take(samples, last);
    };
    return {bins, magnitudes, picture, stream, blocks, play};
  };
})();
