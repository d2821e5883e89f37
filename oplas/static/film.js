// The button of a film was pressed. This is the text of its onclick, so `this` is the button.

// Before the first press a film runs, unless the reader asked for less motion; then it starts anew.
function toggle(film) {
  const svg = film.querySelector('svg'), first = !film.dataset.play;
  const runs = first ? !matchMedia('(prefers-reduced-motion: reduce)').matches : film.dataset.play == 'on';
  if (first && !runs) svg.setCurrentTime(0);
  if (runs) svg.pauseAnimations(); else svg.unpauseAnimations();
  film.dataset.play = runs ? 'off' : 'on';
}

toggle(this.parentNode);
