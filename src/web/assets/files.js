// The files screen: a source, its ribbon of dates, a folder whose path stays when the date changes, versions,
// contents.
import { answer, aside, ask, beside, bring, button, card, choice, date, decode, empty, encode, failed, fileAddress, fill, h, icon, known, last, nameOfSource, number, parts, pill, say, shown, size, small, snapshots, table, time, title, to, under, view } from './base.js';

const PAGE = 200, BESIDE = 500;
const address = (id, path) => `#/files/${id}${path && encode(path) ? `?path=${encode(path)}` : ''}`;

// The lines that differ, by the shortest edit from one text to the other; null if they differ too much.
export function compareLines(old, now) {
  const a = old.split('\n'), b = now.split('\n');
  let start = 0, endA = a.length, endB = b.length;
  while (start < endA && start < endB && a[start] === b[start]) start += 1;
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) { endA -= 1; endB -= 1; }
  const x = a.slice(start, endA), y = b.slice(start, endB), most = Math.min(x.length + y.length, 1500);
  const trace = [];
  let reach = new Map([[1, 0]]), found = -1;
  for (let d = 0; d <= most && found < 0; d += 1) {
    trace.push(new Map(reach));
    for (let k = -d; k <= d; k += 2) {
      let at = k === -d || (k !== d && (reach.get(k - 1) ?? -1) < (reach.get(k + 1) ?? -1)) ? reach.get(k + 1) ?? 0 : (reach.get(k - 1) ?? 0) + 1;
      while (at < x.length && at - k < y.length && x[at] === y[at - k]) at += 1;
      reach.set(k, at);
      if (at >= x.length && at - k >= y.length) { found = d; break; }
    }
  }
  if (found < 0) return null;
  const lines = [];
  let at = x.length, to = y.length;
  for (let d = found; d > 0; d -= 1) {
    const before = trace[d], k = at - to;
    const down = k === -d || (k !== d && (before.get(k - 1) ?? -1) < (before.get(k + 1) ?? -1));
    const fromK = down ? k + 1 : k - 1, fromAt = before.get(fromK) ?? 0, fromTo = fromAt - fromK;
    while (at > fromAt && to > fromTo && at > 0 && to > 0 && x[at - 1] === y[to - 1]) { at -= 1; to -= 1; lines.push([' ', x[at]]); }
    if (down) { to -= 1; lines.push(['+', y[to]]); } else { at -= 1; lines.push(['-', x[at]]); }
  }
  while (at > 0) { at -= 1; lines.push([' ', x[at]]); }
  lines.reverse();
  const context = 3;
  return [...a.slice(Math.max(0, start - context), start).map((line) => [' ', line]), ...lines, ...a.slice(endA, endA + context).map((line) => [' ', line])];
}

function difference(lines) {
  if (!lines) return empty(say('diff.much'));
  if (lines.every(([mark]) => mark === ' ')) return empty(say('diff.none'));
  return view('diff.label', lines.map(([mark, line]) => h('div', { class: mark === '+' ? 'add' : mark === '-' ? 'del' : '' }, `${mark} ${line}`)));
}

const kinds = { directory: 'folder', symlink: 'link' };
const entryIcon = (entry) => icon(kinds[entry.kind] ?? 'file');

async function picture(snapshot, path, type) {
  const response = await fetch(fileAddress(snapshot, path));
  if (!response.ok) await answer(response);
  // Decoded as a picture and painted, so that no part of the file becomes a document.
  const bitmap = await createImageBitmap(new Blob([await response.arrayBuffer()], { type }));
  const scale = Math.min(1, 1200 / Math.max(bitmap.width, bitmap.height));
  const canvas = h('canvas', { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)), role: 'img', 'aria-label': say('preview.picture', { name: shown(last(path)) }) });
  canvas.getContext('2d').drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function content(snapshot, path) {
  const place = h('div');
  bring(place, ask('preview', { snapshot, path }).then(async (told) => {
    if (told.kind === 'text') return [view('preview.text', told.text), !told.whole && small(say('preview.cut'))];
    if (told.kind === 'none') return empty(say('preview.none'));
    return picture(snapshot, path, told.kind);
  }), (shownContent) => shownContent);
  return place;
}

// A panel for a file: its metadata, its content, its versions.
function panel(info, entry, list, go) {
  const path = entry.path, isFile = entry.kind === 'file', place = h('div');
  const act = h('div', { class: 'row' },
    isFile && h('a', { class: 'btn primary', href: fileAddress(info.id, path), download: true }, icon('down'), say('file.download')),
    !known.status.read_only && to(`#/restore/${info.id}?path=${encode(path)}`, [icon('restore'), say('file.restore')]));
  const tabs = ['content', 'versions', 'details'].filter((name) => isFile || name !== 'content');
  const [seg, choose] = choice(say('file.parts'), tabs, (name) => say(`file.${name}`), (name) => fill(place, name === 'content' ? content(info.id, path) : name === 'versions' ? versions() : details()));
  const details = () => h('dl', {}, [
    ['kind', say(`kind.${entry.kind}`)], ['size', isFile ? `${size(entry.size)} (${say('bytes', { count: entry.size })})` : null], ['changed', time(entry.mtime)], ['mode', entry.mode],
    ['owner', `${shown(entry.user) || entry.uid} : ${shown(entry.group) || entry.gid}`], ['target', entry.target ? shown(entry.target) : null], ['torn', entry.torn ? say('file.torn.yes') : null],
  ].filter(([, value]) => value !== null).map(([name, value]) => [h('dt', {}, say(`detail.${name}`)), h('dd', {}, value)]));
  const versions = () => {
    const inside = h('div'), below = h('div');
    bring(inside, ask('history', { source: info.source, host: info.host, path }), (told) => {
      const at = told.versions.findIndex((one) => one.snapshots.includes(info.id));
      return [h('ol', { class: 'vers' }, told.versions.map((one, number) => {
        const first = list.byId.get(one.snapshots.at(-1)), newest = list.byId.get(one.snapshots[0]);
        const before = told.versions[number + 1];
        const compare = one.entry?.kind === 'file' && before?.entry?.kind === 'file' && one.change === 'content' && button(say('version.diff'), () => bring(below, Promise.all([ask('preview', { snapshot: before.snapshots[0], path }), ask('preview', { snapshot: newest.id, path })]), ([old, now]) => (old.kind === 'text' && now.kind === 'text' ? difference(compareLines(old.text, now.text)) : empty(say('diff.nontext')))), 's');
        return h('li', { 'aria-current': number === at ? 'true' : undefined },
          h('a', { href: address(newest.id, path) }, date(first.time)), aside(say(`change.${one.change}`), one.entry?.kind === 'file' ? `, ${size(one.entry.size)}` : ''),
          compare, one.entry?.kind === 'file' && h('a', { class: 'btn s', href: fileAddress(newest.id, path), download: true, 'aria-label': say('version.download', { when: date(first.time) }) }, icon('down')));
      })), told.broken > 0 && small(say('version.broken', { count: told.broken })), below];
    });
    return inside;
  };
  choose(tabs[0]);
  const close = h('a', { class: 'btn s', href: go, 'aria-label': say('file.close') }, say('file.close'));
  return h('section', { class: 'card panel stack', 'aria-label': say('file.panel', { name: shown(last(path)) }) }, beside(h('h2', { class: 'grow' }, shown(last(path))), close), act, seg, place);
}

// The entries of a folder; further ones are loaded on request.
function folder(info, path, openFile, selected) {
  const body = h('tbody'), more = h('div', { class: 'row' }), place = h('div');
  const all = table(['name', 'r size', 'wide changed'], body);
  let count = 0;
  const add = (told) => {
    for (const entry of told.entries) {
      const isFolder = entry.kind === 'directory', href = isFolder ? address(info.id, entry.path) : openFile(entry.path);
      body.append(h('tr', { 'aria-selected': selected && encode(selected) === encode(entry.path) ? 'true' : undefined, onclick: (event) => { if (!event.target.closest('a')) location.hash = href; } },
        h('td', {}, h('a', { class: 'name', href }, entryIcon(entry), h('span', {}, shown(last(entry.path))))),
        h('td', { class: 'r' }, entry.kind === 'file' ? size(entry.size) : ''), h('td', { class: 'wide' }, time(entry.mtime))));
    }
    count += told.entries.length;
    fill(more, told.next !== null && h('button', { type: 'button', class: 'btn', onclick: () => ask('ls', { snapshot: info.id, path, from: told.next, count: 5000 }).then(add, (error) => fill(more, failed(error))) }, say('folder.more')));
  };
  bring(place, ask('ls', { snapshot: info.id, path, count: selected ? BESIDE : PAGE }), (told) => {
    add(told);
    return count === 0 ? empty(say('folder.empty')) : [h('div', { class: 'scroll' }, all), h('div', { class: 'dated' }, more)];
  });
  all.addEventListener('keydown', (event) => {
    const links = [...body.querySelectorAll('a')], at = links.indexOf(document.activeElement);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (next !== undefined && links[next]) { event.preventDefault(); links[next].focus(); }
  });
  return place;
}

export async function files(main, { parts: [id], query }) {
  const list = await snapshots();
  list.byId ??= new Map(list.snapshots.map((info) => [info.id, info]));
  if (list.snapshots.length === 0) { fill(main, title(say('screen.files')), card(null, empty(say('files.none')))); return; }
  const path = decode(query.get('path') ?? '');
  const wanted = list.sources.get(JSON.stringify([decodeURIComponent(query.get('source') ?? ''), decodeURIComponent(query.get('host') ?? '')]));
  const own = list.snapshots.findLast((info) => info.host === known.status.host) ?? list.snapshots.at(-1);
  const info = list.byId.get(id) ?? wanted?.all.at(-1) ?? (id ? null : own);
  if (!info) { fill(main, title(say('screen.files')), failed({ message: say('files.gone') })); return; }
  const source = list.sources.get(JSON.stringify([info.source, info.host]));
  const many = new Set(list.snapshots.map((one) => one.host)).size > 1;
  const at = source.all.indexOf(info), most = Math.max(1, ...source.all.map((one) => one.bytes_stored));
  const select = h('select', { class: 'field', 'aria-label': say('files.source'), onchange: (event) => { location.hash = address(list.sources.get(event.target.value).all.at(-1).id); } },
    [...list.sources.values()].map((one) => h('option', { value: one.key, selected: one === source }, nameOfSource(one, many))));
  select.value = source.key;
  const step = (by, name) => h('a', { class: 'btn s', href: source.all[at + by] ? address(source.all[at + by].id, path) : undefined, 'aria-label': say(`ribbon.${name}`), 'aria-disabled': source.all[at + by] ? undefined : 'true', role: 'link' }, icon(name));
  const ribbon = h('div', { class: 'ribbon', role: 'group', 'aria-label': say('ribbon.label', { count: source.all.length }) }, source.all.map((one) => h('button', {
    type: 'button', class: one.verdict === 'complete' ? '' : 'part', tabindex: one === info ? '0' : '-1', 'aria-current': one === info ? 'date' : undefined, 'aria-label': say('ribbon.one', { when: date(one.time), size: size(one.bytes_stored) }), title: date(one.time), onclick: () => { location.hash = address(one.id, path); },
  }, h('i', { '--part': Math.sqrt(one.bytes_stored / most) }))));
  ribbon.addEventListener('keydown', (event) => {
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: source.all.length - 1 }[event.key];
    if (next !== undefined && source.all[next]) { event.preventDefault(); sessionStorage.setItem('ribbon', '1'); location.hash = address(source.all[next].id, path); }
  });
  const day = h('input', { type: 'date', class: 'field', 'aria-label': say('ribbon.day'), onchange: (event) => {
    const end = new Date(`${event.target.value}T23:59:59`).getTime();
    if (!Number.isNaN(end)) location.hash = address((source.all.findLast((one) => new Date(one.time) <= end) ?? source.all[0]).id, path);
  } });
  const dates = h('section', { class: 'card flush', 'aria-label': say('files.dates') }, ribbon, h('div', { class: 'dated' }, step(-1, 'left'), h('b', {}, time(info.time)), step(1, 'right'), day, info.verdict !== 'complete' && h('a', { href: `#/files/${info.id}?skipped=1` }, pill('warn', say('source.partial', { count: info.skipped }))), info.late > 0 && pill('warn', say('source.late', { count: info.late })), aside(say('files.of', { files: info.files, size: size(info.bytes) }))));
  const trail = parts(path), isTop = trail.length === 0;
  // The path stays when the date changes: it may be a folder, a file, or missing.
  const content = h('div');
  fill(main, title(say('screen.files'), select), dates, content);
  if (sessionStorage.getItem('ribbon')) { sessionStorage.removeItem('ribbon'); ribbon.querySelector('[aria-current]')?.focus(); }
  ribbon.querySelector('[aria-current]')?.scrollIntoView({ inline: 'nearest', block: 'nearest' });
  if (query.get('skipped')) {
    bring(content, ask('skipped', { snapshot: info.id }), (told) => card(say('skipped.title'), h('ul', { class: 'stack' }, told.skipped.map((one) => h('li', {}, h('b', {}, shown(one.path)), under(one.why, one.stored ? ` ${say('skipped.stored')}` : ''))))));
    return;
  }
  const crumbs = (to) => h('nav', { 'aria-label': say('files.path') }, h('ol', { class: 'crumbs' }, h('li', {}, h('a', { href: address(info.id), 'aria-current': isTop ? 'page' : undefined }, say('files.top'))), to.map((one, number) => h('li', {}, '/', number === to.length - 1 ? h('b', { 'aria-current': 'page' }, shown(one.name)) : h('a', { href: address(info.id, one.path) }, shown(one.name))))));
  await bring(content, isTop ? Promise.resolve({ kind: 'directory', path: '' }) : ask('entry', { snapshot: info.id, path }).catch((error) => { if (error.status === 404) return null; throw error; }), (entry) => {
    if (!entry) return h('section', { class: 'card flush' }, crumbs(trail), h('div', { class: 'empty' }, h('p', {}, say('files.absent')), to(address(info.id, trail.at(-2)?.path ?? ''), say('files.up'), 'btn')));
    const isFolder = entry.kind === 'directory';
    const here = isFolder ? trail : trail.slice(0, -1), herePath = here.at(-1)?.path ?? '';
    const actions = h('div', { class: 'dated' }, !known.status.read_only && to(`#/restore/${info.id}${herePath ? `?path=${encode(herePath)}` : ''}`, [icon('restore'), say('folder.restore')], 'btn s'), h('a', { class: 'btn s', href: fileAddress(info.id, herePath), download: true }, icon('down'), say('folder.download')), at > 0 && to(`#/compare/${source.all[at - 1].id}/${info.id}`, [icon('compare'), say('folder.compare')], 'btn s'));
    const listing = h('section', { class: 'card flush', 'aria-label': say('folder.label') }, crumbs(here), folder(info, herePath, (file) => address(info.id, file), isFolder ? null : path), actions);
    return h('div', { class: isFolder ? 'split one' : 'split' }, listing, !isFolder && panel(info, entry, list, address(info.id, herePath)));
  });
  const keys = (event) => { if (event.key === 'Escape' && !event.target.closest('input, select') && main.querySelector('.panel')) location.hash = address(info.id, trail.at(-2)?.path ?? ''); };
  document.addEventListener('keydown', keys);
  return () => document.removeEventListener('keydown', keys);
}
