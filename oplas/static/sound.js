// Log-mel pictures to sound and back, with the numbers of oplas.audio. Only arithmetic: it runs in a Worker, in
// node and in V8 from Python. It needs FFT, from fft.js. Spectra lie frame after frame, real part, imaginary part.

const oplasSound = (() => {
  'use strict';

  // An error that names what is wrong, what came and what is accepted.
  const refuse = (name, got, accepted) => {
    throw new RangeError(`${name} must be ${accepted}, got ${got}`);
  };

  const whole = (name, x, least) => {
    if (!Number.isInteger(x) || x < least) refuse(name, x, `a whole number from ${least} on`);
    return x;
  };

  // A Hann window under which a sine of amplitude 1 has a peak of magnitude 1.
  const hann = (n) => Float64Array.from({length: n}, (_, i) => (1 - Math.cos(2 * Math.PI * i / n)) / (n / 2));

  // The mel filters bin by bin, each divided by its norm: bin k lies in row low[k] with weight down[k], and in
  // the row after with weight up[k]. What rows i and i + 1 share is side[i].
  const filterBank = (rows, bins) => {
    const low = new Int32Array(bins).fill(-1), down = new Float64Array(bins), up = new Float64Array(bins);
    const norm = rows.map(({weights}) => Math.sqrt(weights.reduce((sum, w) => sum + w * w, 0)));
    const side = new Float64Array(rows.length + 1);
    rows.forEach(({start, weights}, row) => weights.forEach((weight, i) => {
      const k = start + i, free = low[k] < 0;
      if (!free && low[k] != row - 1) refuse(`rows[${row}]`, `bin ${k}`, `within ${bins} bins, two rows a bin`);
      if (free) low[k] = row;
      (free ? down : up)[k] = weight / norm[row];
      if (!free) side[row - 1] += down[k] * up[k];
    }));
    return {low: low.map((row) => Math.max(row, 0)), down, up, norm, side, n: rows.length};
  };

  // Filters applied to the magnitudes y of a frame: one number for each row, into `mel`.
  const filtered = ({low, down, up}, y, mel) => {
    mel.fill(0);
    for (let k = 0; k < y.length; k++) {
      mel[low[k]] += down[k] * y[k];
      mel[low[k] + 1] += up[k] * y[k];
    }
  };

  // Solves A Aᵀ s = mel, A being the filters: ones on the diagonal and `side` beside it, so Gauss's elimination
  // goes once down and once up (Thomas).
  const tridiagonal = ({side, n}) => {
    const pivot = new Float64Array(n).fill(1);
    for (let i = 1; i < n; i++) pivot[i] -= side[i - 1] ** 2 / pivot[i - 1];
    if (!(Math.min(...pivot) > 1e-9)) refuse('rows', 'a row that follows from others', 'independent filters');
    return (mel, s) => {
      s[0] = mel[0];
      for (let i = 1; i < n; i++) s[i] = mel[i] - side[i - 1] / pivot[i - 1] * s[i - 1];
      s[n - 1] /= pivot[n - 1];
      for (let i = n - 2; i >= 0; i--) s[i] = (s[i] - side[i] * s[i + 1]) / pivot[i];
    };
  };

  // oplas.audio.mel_to_linear for one frame: magnitudes x, 0 or more, that the filters turn into `mel`. The
  // clipped pseudo-inverse Aᵀ(A Aᵀ)⁻¹, then 20 steps of accelerated projected gradient.
  const melInversion = (bank, bins) => {
    const {low, down, up, side, n} = bank, solve = tridiagonal(bank), y = new Float64Array(bins);
    const rest = new Float64Array(n + 1), got = new Float64Array(n + 1);
    const step = 1 / side.reduce((most, s, i) => Math.max(most, 1 + s + (i ? side[i - 1] : 0)), 0);
    const back = (k) => down[k] * rest[low[k]] + up[k] * rest[low[k] + 1];
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

  // Sound to spectra and back. Two frames go through one complex transform, as its real and its imaginary part;
  // a last frame without a partner goes with itself.
  const transforms = (nFft, hop) => {
    const fft = new FFT(nFft), bins = nFft / 2 + 1, window = hann(nFft);
    const wave = new Float64Array(2 * nFft), both = new Float64Array(2 * nFft);
    const pairs = (frames, use) => {
      for (let f = 0; f < frames; f += 2) use(f, Math.min(f + 1, frames - 1));
    };
    // Spectra c of so many frames of x.
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
    // Sound of so many spectra c, added to x where the frames overlap.
    const add = (c, x, frames) => pairs(frames, (f, g) => {
      for (let k = 0, a = 2 * f * bins, b = 2 * g * bins; k < bins; k++, a += 2, b += 2) {
        const p = 2 * k, q = 2 * (nFft - k), inner = k && k < bins - 1 ? 1 : 0;
        both[p] = c[a] - inner * c[b + 1];
        both[p + 1] = c[b] + inner * c[a + 1];
        if (inner) both[q] = c[a] + c[b + 1];
        if (inner) both[q + 1] = c[b] - c[a + 1];
      }
      fft.inverseTransform(wave, both);
      for (let i = 0; i < nFft; i++) x[f * hop + i] += wave[2 * i] * window[i];
      for (let i = 0; i < nFft && g > f; i++) x[g * hop + i] += wave[2 * i + 1] * window[i];
    });
    return {analyse, add, window, bins};
  };

  // Where a peak's phase stands a hop later, in radians: its frequency is that of the parabola through it.
  const turnOf = (level, k, hop) => {
    const left = level[k - 1], right = level[k + 1];
    const top = Math.fround(.5 * (left - right) / Math.min(left - 2 * level[k] + right, -1e-9));
    return Math.fround(Math.fround(k + top) * Math.fround(Math.PI * hop / (level.length - 1)));
  };

  // oplas.audio._from_peaks for one frame: the phase of each bin goes on with its nearest peak, in 32 bits as
  // there. `phase` is changed in place, and the spectrum goes into c at `at`.
  const goOn = (size, phase, c, at, hop) => {
    const bins = size.length, level = size.map((s) => Math.log(Math.max(s, 1e-20))), peaks = [];
    for (let k = 1; k < bins - 1; k++) {
      if (level[k] >= level[k - 1] && level[k] > level[k + 1]) peaks.push(k);
    }
    const centres = peaks.length ? peaks : [0, bins - 1];
    for (let p = 0, k = 0; p < centres.length; p++) {
      const end = p + 1 < centres.length ? (centres[p] + centres[p + 1]) >> 1 : bins - 1;
      const next = Math.fround(phase[centres[p]] + (peaks.length ? turnOf(level, centres[p], hop) : 0));
      const angle = next % Math.fround(2 * Math.PI), real = Math.cos(angle), imaginary = Math.sin(angle);
      for (; k <= end; k++) {
        const signed = k % 2 ? -size[k] : size[k];  // phase 0 is an impulse in the middle of the frame
        phase[k] = next;
        c[at + 2 * k] = signed * real;
        c[at + 2 * k + 1] = signed * imaginary;
      }
    }
  };

  // The spectra c that a round gave (`now`; the round before: `last`), overshot and brought to their sizes.
  const overshoot = (c, now, last, size, count, momentum) => {
    for (let i = 0, k = 0; k < count; i += 2, k++) {
      const real = now[i] + momentum * (now[i] - last[i]);
      const imaginary = now[i + 1] + momentum * (now[i + 1] - last[i + 1]);
      const scale = size[k] / Math.sqrt(real * real + imaginary * imaginary + 1e-30);
      c[i] = real * scale;
      c[i + 1] = imaginary * scale;
    }
  };

  const joined = (parts) => {
    const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
    return all;
  };

  // What a stream keeps: sizes and spectra of the frames that wait, `known` of which have phases so far; sound and
  // weight (`cover`) that reach in from finished frames; samples to come that lie before time 0.
  const emptyStream = (most, bins, nFft, hop) => {
    const spectra = () => new Float32Array(2 * most * bins), samples = () => new Float64Array((most - 1) * hop + nFft);
    return {waiting: 0, known: 0, before: nFft / 2, size: new Float32Array(most * bins), c: spectra(), now: spectra(),
            last: spectra(), x: samples(), cover: samples(), scale: samples(), phase: new Float32Array(bins),
            tail: new Float64Array(nFft - hop), weight: new Float64Array(nFft - hop)};
  };

  // oplas.audio.GriffinLimStream: sound while the magnitudes still come.
  const griffinLim = ({analyse, add, window, bins}, nFft, hop, {block, lookAhead, rounds, momentum = .99}) => {
    const most = whole('block', block, 1) + whole('lookAhead', lookAhead, 1);
    whole('rounds', rounds, 0);
    if (!(momentum >= 0 && momentum < 2)) refuse('momentum', momentum, 'a number from 0 to 2');
    let s = emptyStream(most, bins, nFft, hop);

    // Phases to start from, for the waiting frames that have none.
    const start = () => {
      const at = 2 * bins * (s.known - 1);
      for (let k = 0; k < bins; k++) {
        s.phase[k] = s.known ? Math.atan2(s.c[at + 2 * k + 1], s.c[at + 2 * k]) - Math.PI * (k % 2) : 0;
      }
      for (let f = s.known; f < s.waiting; f++) {
        goOn(s.size.subarray(f * bins, (f + 1) * bins), s.phase, s.c, 2 * f * bins, hop);
      }
    };

    // The windows' squares added up over so many frames, and what each sample is divided by for them.
    const coverFrames = (frames) => {
      s.cover.fill(0);
      s.cover.set(s.weight);
      for (let f = 0; f < frames; f++) {
        for (let i = 0; i < nFft; i++) s.cover[f * hop + i] += window[i] ** 2;
      }
    };
    const scaleFor = (frames, isLast) => {
      const end = (frames - 1) * hop + nFft;
      coverFrames(frames);
      const least = 1e-6 * s.cover.reduce((most, v) => Math.max(most, v));
      s.scale = s.cover.map((v) => 1 / Math.max(v, least)).fill(0, 0, s.before);
      if (isLast) s.scale.fill(0, end - nFft / 2);
    };

    // The sound of so many waiting frames, with what reaches in.
    const overlapAdd = (frames) => {
      s.x.fill(0);
      s.x.set(s.tail);
      add(s.c, s.x, frames);
    };

    // Phases in better accord, round after round.
    const refine = () => {
      for (let round = 0; round < rounds; round++) {
        overlapAdd(s.waiting);
        for (let i = 0; i < s.x.length; i++) s.x[i] *= s.scale[i];
        analyse(s.x, s.now, s.waiting);
        overshoot(s.c, s.now, round ? s.last : s.now, s.size, s.waiting * bins, momentum);
        [s.now, s.last] = [s.last, s.now];
      }
    };

    // The first `count` frames are finished: their sound goes out, the others wait on.
    const finish = (count) => {
      const isLast = count == s.waiting, ready = count * hop + (isLast ? nFft / 2 - hop : 0);
      start();
      scaleFor(s.waiting, isLast);
      refine();
      overlapAdd(count);
      coverFrames(count);
      const out = Float32Array.from(s.x.subarray(s.before, ready), (v, i) => v * s.scale[s.before + i]);
      s.tail = s.x.slice(count * hop, (count - 1) * hop + nFft);
      s.weight = s.cover.slice(count * hop, (count - 1) * hop + nFft);
      s.size.copyWithin(0, count * bins);
      s.c.copyWithin(0, 2 * count * bins);
      s.waiting = s.known = s.waiting - count;
      s.before = Math.max(0, s.before - ready);
      return out;
    };

    // Takes in frames and gives the samples that are finished, often none.
    const push = (magnitudes) => {
      const frames = magnitudes.length / bins, out = [];
      if (!Number.isInteger(frames)) refuse('magnitudes', `${magnitudes.length} numbers`, `${bins} for each frame`);
      if (!magnitudes.every((m) => m >= 0 && m < Infinity)) refuse('magnitudes', 'others', 'finite and 0 or more');
      for (let f = 0; f < frames; f++) {
        s.size.set(magnitudes.subarray(f * bins, (f + 1) * bins), s.waiting++ * bins);
        if (s.waiting == most) out.push(finish(block));
      }
      return joined(out);
    };

    // The rest, to the middle of the last frame; then ready for the next note.
    const flush = () => {
      const out = s.waiting ? finish(s.waiting) : new Float32Array(0);
      s = emptyStream(most, bins, nFft, hop);
      return out;
    };
    return {push, flush};
  };

  // Checked settings: a frame's length, the hop from frame to frame, the log scale and the mel filters.
  return ({nFft, hop, floor, top, rows}) => {
    if (!(nFft >= 4 && Number.isInteger(Math.log2(nFft)))) refuse('nFft', nFft, 'a power of two from 4 on');
    if (nFft % whole('hop', hop, 1) || nFft < 4 * hop) refuse('hop', hop, `a divisor of ${nFft}, 4 times or more`);
    if (!(floor > 0 && top > 0 && floor + top < Infinity)) refuse('floor and top', [floor, top], 'above 0');
    const turn = transforms(nFft, hop), bins = turn.bins, n = rows.length;
    const bank = filterBank(rows, bins), invert = melInversion(bank, bins), mel = new Float64Array(n + 1);
    const checkPicture = (picture, frames) => {
      if (picture.length != n * whole('frames', frames, 1)) refuse('picture', picture.length, `${n} rows of ${frames}`);
    };

    // Magnitudes of frames `from` to `to` of a picture: LogMel.inverse, then mel_to_linear.
    const magnitudes = (picture, frames, from, to) => {
      checkPicture(picture, frames);
      if (!(whole('from', from, 0) <= to && whole('to', to, 0) <= frames)) refuse('to', to, `${from} … ${frames}`);
      const out = new Float32Array((to - from) * bins);
      for (let f = from; f < to; f++) {
        for (let i = 0; i < n; i++) {
          const x = picture[i * frames + f];
          mel[i] = floor * Math.expm1(Math.max(0, x + 1) * top / 2) / bank.norm[i];
        }
        invert(mel, out.subarray((f - from) * bins, (f - from + 1) * bins));
      }
      return out;
    };

    // LogMel.forward: the picture of a sound, row after row.
    const picture = (samples, frames) => {
      const x = new Float64Array(nFft + (whole('frames', frames, 1) - 1) * hop), y = new Float64Array(bins);
      const c = new Float32Array(2 * frames * bins), out = new Float32Array(n * frames);
      x.set(samples.subarray(0, x.length - nFft / 2), nFft / 2);
      turn.analyse(x, c, frames);
      for (let f = 0; f < frames; f++) {
        for (let k = 0, a = 2 * f * bins; k < bins; k++, a += 2) y[k] = Math.sqrt(c[a] ** 2 + c[a + 1] ** 2);
        filtered(bank, y, mel);
        for (let i = 0; i < n; i++) out[i * frames + f] = 2 / top * Math.log1p(mel[i] * bank.norm[i] / floor) - 1;
      }
      return out;
    };

    const stream = (settings) => griffinLim(turn, nFft, hop, settings);

    // A note's sound, `length` samples in all, block by block: `take(samples, last)` hears each as it is ready.
    const play = (picture, frames, length, {block = 16, lookAhead = 4, rounds = 10}, take) => {
      const voice = stream({block, lookAhead, rounds});
      let left = whole('length', length, 1), from = 0;
      const give = (samples, last) => {
        const part = new Float32Array(last ? left : Math.min(left, samples.length));
        part.set(samples.subarray(0, part.length));
        left -= part.length;
        if (last || part.length) take(part, last);
      };
      while (from < frames) {
        const to = Math.min(frames, from + block + (from ? 0 : lookAhead));
        give(voice.push(magnitudes(picture, frames, from, to)), false);
        from = to;
      }
      give(voice.flush(), true);
    };
    return {bins, magnitudes, picture, stream, play};
  };
})();
