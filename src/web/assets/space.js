// The space screen: how much is stored and for whom, how it grows and how long there is room, and a map of what takes it.
import { ask, beside, bring, card, choice, date, empty, encode, fact, fill, h, icon, known, nameOfSource, number, part, parts, percent, say, shown, size, small, snapshots, table, time, title, under, wide } from './base.js';

const DAY = 86400000, TILES = 18, SOURCES = 12, COLOURS = 6;
const language = document.documentElement.lang;
const total = (all, of) => all.reduce((sum, one) => sum + of(one), 0);
const keyOf = (one) => JSON.stringify([one.source, one.host]);
const monthOf = (text) => new Date(...text.split('-').map((part, at) => Number(part) - at)).toLocaleDateString(undefined, { month: 'long', year: 'numeric' });

// A length of time in its largest unit, of which there are at least two.
function span(days) {
  const [unit, length] = [['year', 365.25], ['month', 30.44], ['week', 7]].find(([, length]) => days >= 2 * length) ?? ['day', 1];
  return new Intl.NumberFormat(language, { style: 'unit', unit, unitDisplay: 'long' }).format(Math.floor(days / length));
}

// The pace of the last 90 days, and the days that the free space lasts at this pace. The first snapshot of a source does
// not count, because such a one comes only once. Null if it is too early to tell.
function forecast(told) {
  const begun = new Set(), now = Date.now(), from = Math.max(now - 90 * DAY, Math.min(...told.snapshots.map((one) => new Date(one.time))));
  const later = told.snapshots.filter((one) => { const key = keyOf(one), is = begun.has(key); begun.add(key); return is && new Date(one.time) >= from; });
  const days = (now - from) / DAY;
  if (!(days >= 7) || later.length === 0) return null;
  const pace = total(later, (one) => one.bytes_added) / days;
  return { pace, days: Math.round(days), left: told.bytes_free === null ? null : pace > 0 ? told.bytes_free / pace : Infinity };
}

function room(told) {
  const now = forecast(told);
  if (!now) return card(say('space.room'), h('p', { class: 'mute' }, say('space.early')));
  const lasts = now.left === null ? say('space.unknown') : now.left > 7305 ? say('space.ages', { free: size(told.bytes_free) }) : say('space.lasts', { free: size(told.bytes_free), time: span(now.left) });
  const isShort = now.left !== null && now.left < 90;
  return h('section', { class: 'card row', 'aria-label': say('space.room') }, icon(isShort ? 'warn' : 'ok'), h('div', { class: 'grow' }, h('h2', {}, lasts), h('p', { class: 'mute' }, say('space.pace', { size: size(Math.round(now.pace * 7)), days: now.days }))));
}

// The size after each snapshot, as a line over time; the months as a table.
function growth(told) {
  const points = [];
  let sum = 0;
  for (const one of told.snapshots) { sum += one.bytes_added; points.push([new Date(one.time).getTime(), sum]); }
  const now = Date.now(), place = h('div');
  const periods = { month: now - 30 * DAY, year: now - 365 * DAY, all: points[0][0] };
  const draw = (period) => {
    const from = Math.max(periods[period], points[0][0]), before = points.findLast(([when]) => when <= from)?.[1] ?? 0;
    const inside = [[from, before], ...points.filter(([when]) => when > from), [now, sum]], most = Math.max(1, sum), length = Math.max(1, now - from);
    let way = '', y = 100 - (100 * before) / most;
    for (const [when, bytes] of inside) { const x = (600 * Math.max(0, when - from)) / length; way += `${way ? 'L' : 'M'}${x} ${y}`; y = 100 - (100 * bytes) / most; way += `L${x} ${y}`; }
    fill(place, h('svg', { class: 'line', viewBox: '0 -2 600 104', preserveAspectRatio: 'none', role: 'img', 'aria-label': say('space.line', { from: date(from), old: size(before), new: size(sum) }) }, h('path', { class: 'area', d: `${way}L600 102L0 102Z` }), h('path', { d: way })),
      h('div', { class: 'ends mute small' }, time(new Date(from).toISOString(), say('space.at', { when: date(from), size: size(before) })), h('span', {}, say('space.today', { size: size(sum) }))));
  };
  const [choose, press] = choice(say('space.period'), Object.keys(periods), (name) => say(`space.period.${name}`), draw);
  press('all');
  let together = 0;
  const rows = told.growth.map((one) => h('tr', {}, cell(monthOf(one.month), ''), cell(number(one.snapshots)), cell(size(one.bytes_added)), cell(size(together += one.bytes_added))));
  return part(say('space.growth'), beside(h('h2', { class: 'grow' }, say('space.growth')), choose), place, listed(say('space.growth'), ['month', 'r snapshots', 'r added', 'r together'], rows.reverse()));
}

// The same in words.
const listed = (label, columns, rows) => h('details', {}, h('summary', {}, say('space.table')), wide(label, table(columns, h('tbody', {}, rows))));
const cell = (text, kind = 'r') => h('td', { class: kind }, text);

// What each source holds alone, what several share, and what nobody needs.
function shares(told) {
  const sum = Math.max(1, told.bytes_needed + told.bytes_dead);
  const all = [...told.sources.map((one) => ({ name: say('source.of', { source: shown(one.source), host: shown(one.host) }), bytes: one.bytes_alone, one })), told.sources.length > 1 && { name: say('space.shared'), bytes: told.bytes_shared }, { name: say('space.unneeded'), bytes: told.bytes_dead }].filter(Boolean);
  const colour = (at) => (at % COLOURS) + 1, line = ({ name, bytes }) => say('space.tile', { name, size: size(bytes), share: percent(bytes, sum) });
  return part(say('space.sources'), h('h2', {}, say('space.sources')), h('div', { class: 'shares', role: 'img', 'aria-label': all.map(line).join('; ') }, all.map((one, at) => h('i', { class: `t${colour(at)}`, '--part': one.bytes / sum }))),
    wide(say('space.alone'), table(['source', 'r wide snapshots', 'r wide last', 'r alone', 'r share'], h('tbody', {}, all.map(({ name, bytes, one }, at) => h('tr', {}, cell([h('i', { class: `swatch t${colour(at)}` }), name], ''), cell(one && number(one.snapshots), 'r wide'), cell(one && size(one.bytes_last), 'r wide'), cell(size(bytes)), cell(percent(bytes, sum))))))), small(say('space.alone')));
}

// Rectangles for these values, the largest first, that fill a field and are as square as may be.
function squares(values, width, height) {
  const found = [], scale = (width * height) / total(values, (one) => one);
  for (let at = 0, x = 0, y = 0, w = width, h = height; at < values.length;) {
    const side = Math.min(w, h);
    let row = 0, count = 0, worst = Infinity;
    for (; at + count < values.length; count += 1) {
      const next = row + values[at + count] * scale, now = Math.max((side * side * values[at] * scale) / (next * next), (next * next) / (side * side * values[at + count] * scale));
      if (now > worst) break;
      [worst, row] = [now, next];
    }
    const deep = row / side;
    for (let end = at + count, along = 0; at < end; at += 1) {
      const long = (values[at] * scale) / deep;
      const [left, top, wide, high] = w >= h ? [x, y + along, deep, long] : [x + along, y, long, deep];
      found.push({ '--x': left / width, '--y': top / height, '--w': wide / width, '--h': high / height });
      along += long;
    }
    if (w >= h) { x += deep; w -= deep; } else { y += deep; h -= deep; }
  }
  return found;
}

// The folders and files that take the most: the largest folder is replaced by what is in it, as long as that says more.
function tilesOf(all) {
  const whole = total(all, ({ told }) => told.bytes), below = new Map(), keyAt = (of, path) => `${of} ${encode(path)}`;
  let tiles = all.map(({ info, told }, of) => ({ info, of, path: '', kind: 'directory', bytes: told.bytes, files: told.files }));
  all.forEach(({ info, told }, of) => told.entries.forEach((entry) => {
    const over = keyAt(of, parts(entry.path).at(-2)?.path ?? '');
    if (!below.has(over)) below.set(over, []);
    below.get(over).push({ ...entry, info, of });
  }));
  for (;;) {
    const largest = tiles.filter((one) => one.kind === 'directory' && !one.isClosed).sort((a, b) => b.bytes - a.bytes)[0];
    if (!largest) break;
    const inside = (below.get(keyAt(largest.of, largest.path)) ?? []).filter((one) => one.bytes >= whole / (one.kind === 'directory' ? 60 : 20)).slice(0, TILES - tiles.length);
    const bytes = total(inside, (one) => one.bytes), files = total(inside, (one) => one.files);
    if (inside.length === 0 || bytes < largest.bytes / 2) { largest.isClosed = true; continue; }
    const rest = bytes < largest.bytes && { ...largest, isClosed: true, isRest: true, bytes: largest.bytes - bytes, files: largest.files - files };
    tiles = tiles.flatMap((one) => (one === largest ? [...inside, rest] : one)).filter(Boolean);
  }
  // A colour for each source, or for what lies side by side where the paths part.
  const ways = tiles.map((one) => parts(one.path).map((part) => encode(part.name)));
  let same = 0;
  while (ways.length > 0 && ways.every((way) => way.length > same + 1 && way[same] === ways[0][same])) same += 1;
  const groups = [], groupOf = (one, at) => (all.length > 1 ? one.of : ways[at][same] ?? '');
  tiles.forEach((one, at) => { const group = groupOf(one, at); if (!groups.includes(group)) groups.push(group); one.colour = (groups.indexOf(group) % COLOURS) + 1; });
  return tiles.filter((one) => one.bytes > 0).sort((a, b) => b.bytes - a.bytes);
}

function map(all, width, many) {
  const tiles = tilesOf(all), whole = total(tiles, (one) => one.bytes);
  if (tiles.length === 0) return empty(say('space.nothing'));
  const nameOf = (one) => { const path = one.path === '' ? say('space.all', { source: shown(nameOfSource(one.info, many)) }) : shown(one.path); return one.isRest ? say('space.rest', { path }) : path; };
  const near = (one) => (one.path === '' || one.isRest ? nameOf(one) : parts(one.path).slice(-2).flatMap(({ name }, at) => [at > 0 && ['/', h('wbr')], shown(name)]));
  const line = (one) => say('space.tile', { name: nameOf(one), size: size(one.bytes), share: percent(one.bytes, whole) });
  const href = (one) => `#/files/${one.info.id}${encode(one.path) ? `?path=${encode(one.path)}` : ''}`;
  const links = tiles.map((one) => h('a', { class: `t${one.colour}`, href: href(one), title: line(one), 'aria-label': line(one) }, h('b', {}, near(one)), h('span', {}, size(one.bytes))));
  const places = squares(tiles.map((one) => one.bytes), width, 400), field = h('ul', { class: 'map', 'aria-label': say('space.map') }, links.map((link, at) => h('li', places[at], link)));
  // The arrows go to the nearest tile in their direction.
  field.addEventListener('keydown', (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key], at = links.indexOf(document.activeElement);
    if (!way || at < 0) return;
    event.preventDefault();
    const middle = (one) => [one['--x'] + one['--w'] / 2, one['--y'] + one['--h'] / 2], [x, y] = middle(places[at]);
    const far = places.map((one) => { const [u, v] = middle(one), along = (u - x) * way[0] + (v - y) * way[1]; return along > 1e-6 ? along + 2 * Math.abs((u - x) * way[1] + (v - y) * way[0]) : Infinity; });
    const next = far.indexOf(Math.min(...far));
    if (far[next] < Infinity) links[next].focus();
  });
  const rows = tiles.map((one) => h('tr', {}, h('td', {}, h('a', { href: href(one) }, nameOf(one)), many && under(shown(nameOfSource(one.info, true)))), cell(number(one.files), 'r wide'), cell(size(one.bytes)), cell(percent(one.bytes, whole))));
  return [field, listed(say('space.map'), ['path', 'r wide files', 'r size', 'r share'], rows)];
}

export async function space(main, { query }) {
  const list = await snapshots(), figures = h('div'), place = h('div'), many = new Set(list.snapshots.map((info) => info.host)).size > 1;
  if (list.snapshots.length === 0) { fill(main, title(say('screen.space')), card(null, empty(say('files.none')))); return; }
  const sources = [...list.sources.values()].sort((a, b) => b.all.at(-1).bytes - a.all.at(-1).bytes).slice(0, SOURCES);
  let chosen = sources.find((one) => encodeURIComponent(one.key) === query.get('of'));
  // The last snapshot that is a month older than the newest one; of a younger source, its first one.
  const before = (one) => { const month = new Date(one.all.at(-1).time) - 30 * DAY; return one.all.findLast((info) => new Date(info.time) <= month) ?? (one.all.length > 1 ? one.all[0] : null); };
  let measured = query.get('new') ? 'new' : 'all';
  const load = (measure) => {
    measured = measure;
    const isNew = measure === 'new', wanted = (chosen ? [chosen] : sources).filter((one) => !isNew || before(one));
    const pairs = [chosen && `of=${encodeURIComponent(chosen.key)}`, isNew && 'new=1'].filter(Boolean).join('&');
    history.replaceState(null, '', `#/space${pairs && `?${pairs}`}`);
    return bring(place, Promise.all(wanted.map(async (one) => ({ info: one.all.at(-1), told: await ask('usage', { snapshot: one.all.at(-1).id, since: isNew ? before(one).id : null, depth: 4, count: 600 }) }))), (all) => {
      const unread = total(all, ({ told }) => told.broken);
      return [map(all, place.clientWidth || 300, sources.length > 1), isNew && wanted.length > 0 && small(say('space.since', { when: date(Math.min(...wanted.map((one) => new Date(before(one).time)))) })), unread > 0 && small(say('space.unread', { count: unread }))];
    });
  };
  const [measure, press] = choice(say('space.measure'), ['all', 'new'], (name) => say(`space.measure.${name}`), load);
  const select = sources.length > 1 && h('select', { class: 'field', 'aria-label': say('files.source'), onchange: (event) => { chosen = sources.find((one) => one.key === event.target.value); load(measured); } }, h('option', { value: '' }, say('space.every')), sources.map((one) => h('option', { value: one.key }, shown(nameOfSource(one, many)))));
  if (chosen) select.value = chosen.key;
  fill(main, title(say('screen.space')), part(say('space.map'), beside(h('h2', { class: 'grow' }, say('space.map')), select, measure), place), figures);
  // The figures take longer than the map; they are asked for again only when the snapshots have changed.
  if (known.figures?.of !== list) known.figures = { of: list, told: ask('stats') };
  const counted = bring(figures, known.figures.told.catch((error) => { known.figures = null; throw error; }), (told) => {
    const stored = told.bytes_packs + told.bytes_records;
    return [card(null, h('div', { class: 'facts' }, fact(size(told.bytes_raw), say('space.raw')), fact(size(stored), say('space.stored'), ' ', say('space.part', { share: percent(stored, told.bytes_raw) })), fact(size(told.bytes_unique), say('space.unique')), fact(size(told.bytes_dead), say('space.dead')))),
      room(told), growth(told), shares(told)];
  });
  await Promise.all([press(measured), counted]);
}
