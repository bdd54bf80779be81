// The frame: choosing the screen for an address, signing in, and following changes while the page is open.
import { act, ask, fill, h, hear, icon, known, say, setWords, failed } from './base.js';
import { overview } from './overview.js';
import { files } from './files.js';
import { restore } from './restore.js';
import { activity } from './activity.js';
import { space } from './space.js';
import * as more from './more.js';

const SCREENS = {
  '': { icon: 'home', show: overview }, files: { icon: 'folder', show: files }, restore: { icon: 'restore', show: restore, hidden: true },
  activity: { icon: 'activity', show: activity }, search: { icon: 'search', show: more.search }, compare: { icon: 'compare', show: more.compare },
  keep: { icon: 'keep', show: more.keep }, space: { icon: 'space', show: space }, health: { icon: 'health', show: more.health },
  keys: { icon: 'key', show: more.keys }, settings: { icon: 'settings', show: more.settings }, guide: { icon: 'more', show: more.guide, hidden: true },
};
const BAR = ['', 'files', 'search', 'activity', 'health'];
const main = document.getElementById('main');
let leave = null, shownAt = null;

// An address: #/screen/part/part?name=value, each part encoded byte by byte.
function address() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  return { parts: path.split('/'), query: new Map((query ?? '').split('&').filter(Boolean).map((pair) => pair.split(/=(.*)/s))) };
}

function frame(current) {
  const link = (name) => {
    const label = say(`screen.${name || 'overview'}`);
    return h('a', { href: `#/${name}`, 'aria-current': name === current ? 'page' : undefined }, icon(SCREENS[name].icon), h('span', {}, label));
  };
  const names = Object.keys(SCREENS).filter((name) => !SCREENS[name].hidden);
  const status = known.status;
  fill(document.getElementById('side'),
    h('a', { class: 'brand', href: '#/' }, h('svg', { viewBox: '0 0 32 32', class: 'mark', 'aria-hidden': 'true' }, h('circle', { cx: 16, cy: 16, r: 13, class: 'ring' }), h('circle', { cx: 16, cy: 16, r: 4, class: 'core' })), 'vault'),
    h('nav', { class: 'all', 'aria-label': say('nav.all') }, names.map(link)),
    status && h('div', { class: 'where' }, h('b', {}, status.place), h('span', {}, status.read_only ? say('where.readonly', status) : say('where.user', status))),
    h('nav', { class: 'tabbar', 'aria-label': say('nav.main') }, BAR.map(link)));
}

async function show() {
  const { parts, query } = address();
  const name = Object.hasOwn(SCREENS, parts[0]) ? parts[0] : '';
  const screen = SCREENS[name];
  if (typeof leave === 'function') leave();
  leave = null;
  if (shownAt !== name) { frame(name); window.scrollTo(0, 0); }
  const isOther = shownAt !== null && shownAt !== name;
  shownAt = name;
  document.title = `${say(`screen.${name || 'overview'}`)} · vault`;
  document.body.dataset.screen = name || 'overview';
  try {
    leave = await screen.show(main, { parts: parts.slice(1), query });
  } catch (error) {
    fill(main, failed(error));
    if (error.status === 401) locked();
  }
  document.body.dataset.ready = location.hash;
  if (isOther && !main.contains(document.activeElement)) main.focus({ preventScroll: true });
  if (isOther) hear(document.title);
}

function locked() {
  document.body.dataset.screen = 'locked';
  fill(document.getElementById('side'));
  fill(main, h('section', { class: 'card narrow' }, h('h1', {}, say('locked.title')), h('p', { class: 'mute' }, say('locked.text')), h('p', { class: 'mute small' }, say('locked.how'))));
  document.body.dataset.ready = 'locked';
}

// Changes arrive by one stream, which rests while the page is hidden.
let stream = null;
function listen() {
  if (document.hidden || !known.status) { stream?.close(); stream = null; return; }
  if (stream) return;
  stream = new EventSource('/api/v1/events');
  stream.addEventListener('job', (event) => {
    const job = JSON.parse(event.data), before = known.jobs.get(job.id);
    known.jobs.set(job.id, job);
    document.dispatchEvent(new CustomEvent('job', { detail: job }));
    if (before?.state === 'running' && job.state !== 'running') hear(say(`job.${job.kind}.${job.state}`));
  });
  stream.addEventListener('changed', () => { known.list = null; document.dispatchEvent(new Event('changed')); });
  stream.addEventListener('run', (event) => { known.running = event.data === 'begun'; document.dispatchEvent(new CustomEvent('run', { detail: event.data })); });
  stream.addEventListener('now', (event) => { document.dispatchEvent(new CustomEvent('now', { detail: JSON.parse(event.data) })); });
  stream.onerror = async () => {
    if (stream?.readyState !== EventSource.CLOSED) return;
    stream = null;
    await ask('status').then(() => setTimeout(listen, 2000), (error) => { if (error.status === 401) locked(); });
  };
}

addEventListener('hashchange', show);
document.addEventListener('locked', locked);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && known.status) { known.list = null; document.dispatchEvent(new Event('changed')); }
  listen();
});
addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, textarea, select, [contenteditable]');
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    const field = document.querySelector('input[type=search]');
    if (field) field.focus(); else location.hash = '#/search';
  } else if (event.key === 'Escape' && typing) {
    event.target.blur();
  }
});

async function begin() {
  setWords(await (await fetch('/words.en.json')).json());
  document.getElementById('skip').textContent = say('skip');
  document.getElementById('skip').addEventListener('click', (event) => { event.preventDefault(); main.focus(); });
  const token = /^#token=([0-9a-f]+)$/.exec(location.hash);
  if (token) {
    history.replaceState(null, '', '#/');
    await act('session', { token: token[1] }).catch(() => {});
  }
  try {
    known.status = await ask('status');
  } catch (error) {
    if (error.status === 401) { locked(); return; }
    fill(main, failed(error));
    return;
  }
  await show();
  listen();
}
begin();
