// A map of sounds was clicked. This is the text of its onclick, so `this` is the map.

// A press stops what sounds, starts the sound of its point, marks the point and says its name.
const point = event.target.closest('button');
if (point) {
  for (const sound of document.querySelectorAll('.oplas-sound')) sound.pause();
  point.firstChild.currentTime = 0;
  point.firstChild.play().catch(() => {});
  this.querySelector('[aria-current]')?.removeAttribute('aria-current');
  point.setAttribute('aria-current', 'true');
  this.querySelector('[aria-live]').textContent = point.getAttribute('aria-label');
}
