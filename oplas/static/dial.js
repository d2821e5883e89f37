// A dial was touched, clicked or given a key. This is the text of its handler, so `this` is the dial.

const ring = this.querySelector('[role=slider]'), player = this.querySelector('audio');
const marks = [...ring.querySelectorAll('i')], n = marks.length;
const now = +ring.getAttribute('aria-valuenow');

// Degrees: an angle brought to ±180, and the direction of (x, y), right and down.
const near = (angle) => angle - 360 * Math.round(angle / 360);
const direction = (x, y) => Math.atan2(y, x) * 180 / Math.PI;

// Where point k lies, in per cent from the middle.
const spot = (k) => [parseFloat(marks[k].style.left) - 50, parseFloat(marks[k].style.top) - 50];

// The point whose direction is nearest to the finger's; near the middle no direction is meant.
function pointed() {
  const box = ring.getBoundingClientRect();
  const x = event.clientX - box.x - box.width / 2, y = event.clientY - box.y - box.height / 2;
  const off = marks.map((_, k) => Math.abs(near(direction(...spot(k)) - direction(x, y))));
  return Math.hypot(x, y) < 12 ? now : off.indexOf(Math.min(...off));
}

// Where a key leads: the arrows to the point after or before, Home and End to the first and the last.
function keyed() {
  const next = now + 1, back = now - 1 + n;
  const keys = {ArrowRight: next, ArrowUp: next, ArrowLeft: back, ArrowDown: back, Home: 0, End: n - 1};
  if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey) return null;
  event.preventDefault();
  return keys[event.key] % n;
}

// A hand on the ring: where it points. What a phone refused to play, it may play when the finger leaves.
function turned() {
  if (event.type == 'pointerdown') {
    if (event.button) return null;
    ring.setPointerCapture(event.pointerId);
    return pointed();
  }
  if (event.type == 'pointermove') {
    const to = ring.hasPointerCapture(event.pointerId) ? pointed() : now;
    return to == now ? null : to;
  }
  if (player.src && player.paused && !player.currentTime) player.play().catch(() => {});
  return null;
}

// The point to go to, or null: a button knows where its move takes each point.
function destination(button) {
  if (button) return event.type == 'click' ? JSON.parse(button.dataset.to)[now] : null;
  if (event.target != ring) return null;
  return event.type == 'keydown' ? keyed() : turned();
}

// Stop what sounds, and start the sound of point k in the one player that a phone has to be asked for once.
function play(k) {
  for (const sound of document.querySelectorAll('.oplas-sound')) sound.pause();
  if (!marks[k].dataset.sound) return player.removeAttribute('src');
  player.src = marks[k].dataset.sound;
  player.play().catch(() => {});
}

// Go to a point: the hand takes the shorter way round. The line below is read out only after a button.
function go(dial, to, button) {
  const label = (k) => ring.querySelectorAll('span')[k].textContent;
  const [x, y] = spot(to), hand = ring.querySelector('b'), before = parseFloat(hand.style.rotate);
  hand.style.rotate = before + near(direction(x, y) - before) + 'deg';
  hand.style.width = Math.hypot(x, y) + '%';
  marks.forEach((mark, k) => mark.toggleAttribute('data-on', k == to));
  ring.setAttribute('aria-valuenow', to);
  ring.setAttribute('aria-valuetext', label(to));
  const line = dial.querySelector('[aria-live]');
  line.setAttribute('aria-live', button ? 'polite' : 'off');
  line.textContent = button ? label(now) + ' → ' + label(to) : label(to);
  play(to);
}

const button = event.target.closest('button'), to = destination(button);
if (to !== null) go(this, to, button);
