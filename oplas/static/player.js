// Sound that comes in blocks, played without a gap: each block is queued on the sample where the last one ends.

// In seconds: how long a fade takes, and how close to the clock a block has come too late.
const FADE = .012, LATE = .003;

// What begins now is set so far ahead: the sound card takes its samples in batches, of which one may be on its way.
const soon = (context) => context.currentTime + Math.max(.01, context.baseLatency || 0);

// At most so many voices sound, each at this gain. What they add up to beyond .8 is bent below 1, not cut off.
const VOICES = 8, GAIN = .7;
const softLimit = () => Float32Array.from({length: 8193}, (_, k) => {
  const sum = (k - 4096) * VOICES / 4096, size = Math.abs(sum);
  return Math.sign(sum) * (size < .8 ? size : 1 - .2 * Math.exp((.8 - size) / .2));
});

// The end of the line: voices, scaled into the curve's -1 … 1, the curve, the loudspeaker.
const mixer = (context) => {
  const sum = new GainNode(context, {gain: GAIN / VOICES});
  sum.connect(new WaveShaperNode(context, {curve: softLimit()})).connect(context.destination);
  return sum;
};

// The clock ticks once a sample, so that a seam falls on a sample. A browser that refuses this rate takes its own.
const openAudio = (sampleRate) => {
  try {
    return new AudioContext({sampleRate, latencyHint: "interactive"});
  } catch {
    return new AudioContext();
  }
};

// Queue a block behind the last one of its voice; one that comes too late starts afresh. Its start, in samples.
const queueBlock = (context, voice, block, sampleRate) => {
  const now = context.currentTime * sampleRate;
  if (!(voice.next > now + LATE * sampleRate)) voice.next = Math.ceil(soon(context) * sampleRate);
  const buffer = new AudioBuffer({length: block.length, sampleRate});
  buffer.copyToChannel(block, 0);
  const source = new AudioBufferSourceNode(context, {buffer}), start = voice.next;
  source.connect(voice.gain);
  source.start(start / sampleRate);
  voice.sources.push(source);
  voice.next += block.length;
  return start;
};

// No more blocks are taken, and what sounds fades.
const fadeOut = (context, voice) => {
  if (voice.stopped) return;
  voice.stopped = true;
  voice.cancel?.();
  const begin = soon(context), end = begin + FADE;
  voice.gain.gain.setValueAtTime(1, begin).linearRampToValueAtTime(0, end);
  for (const source of voice.sources) source.stop(end);
  if (voice.replaces) fadeOut(context, voice.replaces);
};

// A key is pressed again: its voice computes no more, and sounds on until the new one begins, if it has begun itself.
const handOver = (context, older) => {
  older?.cancel?.();
  if (!older || older.sources.length) return older;
  const {replaces} = older;
  Object.assign(older, {cancel: null, replaces: null});
  fadeOut(context, older);
  return replaces;
};

// How long, in ms, from the press to the first sample that can be heard; NaN if the block is silent.
const delay = (context, voice, block, start, sampleRate) => {
  const first = block.findIndex((x) => Math.abs(x) > 1e-4);
  const ahead = (start + first) / sampleRate - context.currentTime;
  return first < 0 ? NaN : performance.now() - voice.pressed + 1000 * ahead;
};

// Silence for everything else that sounds on the page: the players of ready sounds, and the pads.
const hush = (player) => {
  for (const sound of document.querySelectorAll("audio.oplas-sound")) sound.pause();
  document.dispatchEvent(new CustomEvent("oplas-hush", {detail: player}));
};

// Called from the reader's own touch, since browsers let sound begin only there.
const wakeAudio = (player) => {
  player.context ??= player.open(player.sampleRate);
  player.sum ??= mixer(player.context);
  if (player.context.state !== "running") player.context.resume().catch(() => {});
};

// A block has come. With the first one, the voice that had this key gives way.
const takeBlock = ({context, sampleRate, sounding, voices}, voice, block, last) => {
  if (voice.stopped || !block.length) return;
  if (voice.replaces) fadeOut(context, voice.replaces);
  voice.replaces = null;
  const start = queueBlock(context, voice, block, sampleRate);
  const ms = voice.heard ? NaN : delay(context, voice, block, start, sampleRate);
  if (ms >= 0) sounding(ms);
  voice.heard ||= ms >= 0;
  if (last) voice.sources.at(-1).onended = () => voices.get(voice.key) === voice && voices.delete(voice.key);
};

// Start a voice: `ask(take)` asks for its blocks and returns how to cancel them. A ninth voice ends the oldest.
const startVoice = (player, key, ask) => {
  const {context, voices, sum} = player;
  const voice = {key, pressed: performance.now(), gain: new GainNode(context), sources: []};
  voice.replaces = handOver(context, voices.get(key));
  voice.gain.connect(sum);
  voices.delete(key);
  if (voices.size === VOICES) stopVoice(player, voices.keys().next().value);
  voices.set(key, voice);
  voice.cancel = ask((block, last) => takeBlock(player, voice, block, last));
};
const stopVoice = ({context, voices}, key) => {
  if (voices.has(key)) fadeOut(context, voices.get(key));
  voices.delete(key);
};

// The player of one pad. `sounding(ms)` is called once a voice, when its first sound is queued.
const oplasPlayer = (sampleRate, sounding = () => {}, open = openAudio) => {
  const voices = new Map(), gone = new AbortController(), {signal} = gone;     // key -> voice, the oldest first
  const player = {sampleRate, sounding, open, voices, wake: () => wakeAudio(player)};
  player.start = (key, ask) => {
    player.wake();
    hush(player);
    startVoice(player, key, ask);
  };
  player.stop = (key) => stopVoice(player, key);
  player.stopAll = () => [...voices.keys()].forEach(player.stop);
  player.close = () => {
    player.stopAll();
    player.context?.close();
    gone.abort();
  };
  const isSound = ({target}) => target.matches?.("audio.oplas-sound");
  document.addEventListener("play", (event) => isSound(event) && player.stopAll(), {capture: true, signal});
  document.addEventListener("oplas-hush", ({detail}) => detail === player || player.stopAll(), {signal});
  return player;
};
