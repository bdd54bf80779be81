// Shared parts of all screens: elements, words, numbers and dates, requests to the program, names of any bytes.

export let words = {};
export const setWords = (all) => { words = all; };

// A sentence by its key, with {name} replaced. {count, plural…} is chosen by Intl.PluralRules: key.one, key.other.
export function say(key, values = {}) {
  let text = words[key];
  if (text === undefined && 'count' in values) text = words[`${key}.${plural.select(values.count)}`] ?? words[`${key}.other`];
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (all, name) => {
    const value = values[name];
    return value === undefined ? all : typeof value === 'number' ? number(value) : String(value);
  });
}

const language = document.documentElement.lang;
const plural = new Intl.PluralRules(language);
const numbers = new Intl.NumberFormat(language);
export const number = (value) => numbers.format(value);
const tenths = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const percent = (part, whole) => new Intl.NumberFormat(language, { style: 'percent' }).format(whole ? part / whole : 0);

// Sizes in the form of the command line.
export function size(bytes) {
  if (bytes < 1024) return `${number(bytes)} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes / 1024, at = 0;
  while (value >= 1023.95 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${tenths.format(value)} ${units[at]}`;
}

const stamp = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const dayOnly = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const relative = new Intl.RelativeTimeFormat(language, { numeric: 'auto' });
export const date = (text) => stamp.format(new Date(text));
export const day = (text) => dayOnly.format(new Date(text));
export const hour = (text) => clock.format(new Date(text));
// A time, with its exact form as the tooltip.
export const time = (text, shown = date(text)) => h('time', { datetime: text, title: text }, shown);
export function ago(text, now = Date.now()) {
  const seconds = (new Date(text) - now) / 1000;
  for (const [unit, length] of [['year', 31557600], ['month', 2629800], ['week', 604800], ['day', 86400], ['hour', 3600], ['minute', 60]]) {
    if (Math.abs(seconds) >= length) return relative.format(Math.round(seconds / length), unit);
  }
  return relative.format(0, 'second');
}
export function duration(ms) {
  const seconds = Math.round(ms / 1000);
  const unit = (value, name) => new Intl.NumberFormat(language, { style: 'unit', unit: name, unitDisplay: 'long' }).format(value);
  if (seconds < 60) return unit(seconds, 'second');
  if (seconds < 3600) return `${unit(Math.floor(seconds / 60), 'minute')} ${unit(seconds % 60, 'second')}`;
  return `${unit(Math.floor(seconds / 3600), 'hour')} ${unit(Math.floor(seconds / 60) % 60, 'minute')}`;
}
// The local day of a time, as 2026-11-20.
export function dayKey(when) {
  const d = new Date(when);
  return `${d.getFullYear()}-${String(d.getMonth() + 1).padStart(2, '0')}-${String(d.getDate()).padStart(2, '0')}`;
}

// An element. Texts only ever become text nodes, because names in snapshots can be anything.
export function h(tag, props, ...children) {
  const svg = tag === 'svg' || SVG.has(tag);
  const element = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name.startsWith('--')) element.style.setProperty(name, value);
    else if (name === 'value' || name === 'checked' || name === 'disabled') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  put(element, ...children);
  return element;
}
const SVG = new Set(['path', 'circle', 'rect', 'line', 'g', 'title']);
export function put(element, ...children) {
  for (const child of children.flat(4)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}
export function fill(element, ...children) {
  element.replaceChildren();
  return put(element, ...children);
}

const ICONS = {
  home: 'M4 11.5 12 4l8 7.5M6 10v10h12V10M10 20v-6h4v6', folder: 'M3.5 6.5h6l2 2.5h9v10.5h-17z', file: 'M6 3.5h8l4 4V20.5H6zM14 3.5v4h4',
  restore: 'M4 12a8 8 0 1 0 2.6-5.9M4 4v4.5h4.5M12 8v4.5l3 2', activity: 'M3 12h4l3-8 4 16 3-8h4', search: 'M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.5 20.5 20.5',
  keep: 'M5 5h14v15H5zM5 9.5h14M9 3v4M15 3v4M9 14l2 2 4-4', space: 'M4 20V10M10 20V4M16 20v-7M21 20H3', health: 'M12 20s-7.5-4.6-7.5-10A4.3 4.3 0 0 1 12 7.5 4.3 4.3 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z',
  key: 'M14.5 9.5a4.5 4.5 0 1 0-4 4.5l1.5 1.5h2v2h2v2h3.5V16z', settings: 'M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4', compare: 'M9 4v16M15 4v16M3.5 8H9M15 16h5.5M5.5 6l-2 2 2 2M18.5 14l2 2-2 2',
  ok: 'M5 12.5 10 17.5 19 7', warn: 'M12 4 21.5 20h-19zM12 10v4.5M12 17v.5', bad: 'M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17M12 7.5v6M12 16v.5', down: 'M12 4v11M7 10.5 12 15.5l5-5M5 20h14',
  link: 'M10 14 14 10M8.5 11.5 6 14a3 3 0 0 0 4.2 4.2L12.5 16M15.5 12.5 18 10a3 3 0 0 0-4.2-4.2L11.5 8', left: 'M14.5 5 8 12l6.5 7', right: 'M9.5 5 16 12l-6.5 7', save: 'M12 20V9M7 13.5 12 8.5l5 5M5 4h14', more: 'M5 12h.5M12 12h.5M19 12h.5',
  stop: 'M6.5 6.5h11v11h-11z', up: 'M12 20V5M6 11l6-6 6 6',
};
export const icon = (name) => h('svg', { class: 'i', viewBox: '0 0 24 24', 'aria-hidden': 'true' }, h('path', { d: ICONS[name] }));

// Names and paths: a string if they are UTF-8, else {text, bytes}. In addresses they are encoded byte by byte.
export const raw = (name) => (typeof name === 'string' ? name : name.text);
// The form for people: without characters that would reverse a name, or hide a part of it.
export const shown = (name) => raw(name).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, (odd) => `\\u{${odd.charCodeAt(0).toString(16)}}`);
const encoder = new TextEncoder();
export function bytesOf(name) {
  if (typeof name === 'string') return encoder.encode(name);
  return Uint8Array.from(name.bytes.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
export const encode = (name) => Array.from(bytesOf(name), (byte) => (/[\w.~/-]/.test(String.fromCharCode(byte)) && byte < 128 ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, '0').toUpperCase()}`)).join('');
// Decodes a name from an address.
export function decode(text) {
  const bytes = [];
  for (let at = 0; at < text.length; at += 1) {
    const code = /^%[0-9a-f]{2}/i.test(text.slice(at, at + 3)) ? parseInt(text.slice(at + 1, at + 3), 16) : -1;
    if (code >= 0) { bytes.push(code); at += 2; } else bytes.push(...encoder.encode(text[at]));
  }
  return nameOf(Uint8Array.from(bytes));
}
export function nameOf(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return { text: new TextDecoder().decode(bytes), bytes: Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('') };
  }
}
// The parts of a path, each with the path up to it.
export function parts(path) {
  const bytes = bytesOf(path), found = [];
  let start = 0;
  for (let at = 0; at <= bytes.length; at += 1) {
    if (at === bytes.length || bytes[at] === 47) {
      if (at > start) found.push({ name: nameOf(bytes.slice(start, at)), path: nameOf(bytes.slice(0, at)) });
      start = at + 1;
    }
  }
  return found;
}
export const last = (path) => parts(path).at(-1)?.name ?? '';

// Requests to the program.
export class Refused extends Error {
  constructor(status, problem) { super(problem.error); this.status = status; this.hint = problem.hint; this.code = problem.code; }
}
export async function answer(response) {
  const told = await response.json().catch(() => ({ error: say('refused.unclear'), hint: null }));
  if (!response.ok) throw new Refused(response.status, told);
  return told;
}
export async function ask(path, query = {}, signal = undefined) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const text = pairs.map(([name, value]) => `${name}=${encode(typeof value === 'number' ? String(value) : value).replaceAll('/', '%2F')}`).join('&');
  return answer(await fetch(`/api/v1/${path}${text ? `?${text}` : ''}`, { signal }).catch(gone));
}
export async function act(path, body = {}) {
  return answer(await fetch(`/api/v1/${path}`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }).catch(gone));
}
function gone(error) {
  if (error.name === 'AbortError') throw error;
  throw new Refused(0, { error: say('refused.gone'), hint: say('refused.gone.hint') });
}
export const fileAddress = (snapshot, path) => `/api/v1/file?snapshot=${snapshot}&path=${encode(path).replaceAll('/', '%2F')}`;

// Parts of screens.
export const title = (text, ...more) => h('div', { class: 'head' }, h('h1', {}, text), more);
export const pill = (level, text) => h('span', { class: `pill ${level}` }, icon(level === 'info' ? 'restore' : level), text);
export const note = (level, text, ...acts) => h('div', { class: `note ${level}` }, icon(level), h('div', { class: 'grow' }, text), h('div', { class: 'acts' }, acts));
export const button = (label, onclick, kind = '') => h('button', { type: 'button', class: `btn ${kind}`, onclick }, label);
// Buttons of which one is pressed, and what presses one by its name.
export function choice(label, names, say, go) {
  const group = h('div', { class: 'row', role: 'group', 'aria-label': label }, names.map((name) => button(say(name), () => press(name), 's')));
  const press = (name) => { names.forEach((other, at) => group.children[at].setAttribute('aria-pressed', String(other === name))); return go(name); };
  return [group, press];
}
export const to = (href, label, kind = 'btn') => h('a', { class: kind, href }, label);
export const card = (heading, ...children) => h('section', { class: 'card' }, heading && h('h2', {}, heading), children);
export const small = (...of) => h('p', { class: 'mute small' }, of);
export const aside = (...of) => h('span', { class: 'mute small' }, of);
export const under = (...of) => h('div', { class: 'mute small' }, of);
export const beside = (...of) => h('div', { class: 'row' }, of);
// What scrolls by the keyboard as well.
const scrolls = (tag, kind) => (label, of) => h(tag, { class: kind, tabindex: '0', 'aria-label': say(label) }, of);
export const view = scrolls('pre', 'view'), items = scrolls('ul', 'changes');
export const fact = (value, ...text) => h('div', {}, h('b', { class: 'big' }, value), h('span', { class: 'mute' }, text));
export const part = (label, ...of) => h('section', { class: 'card', 'aria-label': label }, of);
// Something that may be wider than the screen, and is then scrolled also by the keyboard.
export const wide = (label, of) => h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label }, of);
// A table. A column is a key of its heading, after classes of its cells: r for numbers, wide for what a phone leaves out.
export const table = (columns, body) => h('table', {}, h('thead', {}, h('tr', {}, columns.map((column) => {
  const at = column.lastIndexOf(' '), name = column.slice(at + 1);
  return h('th', { scope: 'col', class: column.slice(0, Math.max(0, at)) }, h('span', { class: name === 'change' ? 'sr' : '' }, say(`column.${name}`)));
}))), body);
export const empty = (text) => h('p', { class: 'empty' }, text);
export function failed(error) {
  return h('div', { class: 'note bad', role: 'alert' }, icon('bad'), h('div', { class: 'grow' }, h('b', {}, error.message), error.hint && small(error.hint)));
}
// Shows that the page is waiting, after a short delay, so that quick answers do not flicker.
export function waiting(text = say('waiting')) {
  return h('p', { class: 'waiting' }, text);
}
// Fills a place with what is awaited, and before with what is known. Something newer there wins. Returns whether it is shown.
const newest = new WeakMap();
export async function bring(place, promise, render, before) {
  const isShown = () => newest.get(place) === promise && place.isConnected;
  newest.set(place, promise);
  fill(place, before ?? waiting());
  if (!before) place.setAttribute('aria-busy', 'true');
  try {
    const told = await promise;
    if (isShown()) fill(place, render(told));
    return isShown();
  } catch (error) {
    if (error.name !== 'AbortError' && isShown()) fill(place, [before, failed(error)]);
    if (error.status === 401) document.dispatchEvent(new Event('locked'));
    return false;
  } finally {
    if (newest.get(place) === promise) place.removeAttribute('aria-busy');
  }
}
export const bar = (part, whole, label) => h('div', { class: 'bar', role: 'progressbar', 'aria-label': label, 'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-valuenow': whole ? Math.min(100, Math.floor((100 * part) / whole)) : undefined },
  h('i', { class: whole ? '' : 'pulse', '--part': whole ? Math.min(1, part / whole) : 1 }));
export function hear(text) { document.getElementById('said').textContent = text; }

// The page's data: the user and the snapshots; requested once, and again when they change.
export const known = { status: null, list: null, jobs: new Map() };
export async function snapshots() {
  if (!known.list) {
    known.list = ask('snapshots').then((list) => {
      list.sources = new Map();
      const late = new Map(list.late.map((one) => [one.snapshot, one.count]));
      for (const info of list.snapshots) {
        info.late = late.get(info.id) ?? 0;
        const key = JSON.stringify([info.source, info.host]);
        if (!list.sources.has(key)) list.sources.set(key, { key, source: info.source, host: info.host, all: [] });
        list.sources.get(key).all.push(info);
      }
      return list;
    }).catch((error) => { known.list = null; throw error; });
  }
  return known.list;
}
export const nameOfSource = (one, many) => (many ? say('source.of', { source: one.source, host: one.host }) : one.source);
