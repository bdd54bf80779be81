// The overview screen: one sentence and one dial; each source with its last days; recent activity.
import { act, ago, ask, beside, bring, button, card, dayKey, empty, failed, fill, h, icon, known, nameOfSource, note, pill, say, size, snapshots, time, to, under } from './base.js';

const DAYS = 30, DAY = 86400000;

// The last days, the newest last, each with its snapshots.
function days(all, count = DAYS) {
  const byDay = Map.groupBy(all, (info) => dayKey(info.time));
  return Array.from({ length: count }, (_, at) => {
    const when = new Date(Date.now() - (count - 1 - at) * DAY);
    return { when, all: byDay.get(dayKey(when)) ?? [] };
  });
}
const kind = (one) => (one.all.length === 0 ? '' : one.all.some((info) => info.verdict !== 'complete' || info.roots.some((root) => root.lost)) ? 'part' : 'all');

// A tick for each of the last days, the newest at the top, older ones clockwise.
function dial(all, level) {
  const of = days(all).reverse();
  const saved = of.filter((one) => one.all.length > 0).length;
  const ticks = of.map((one, at) => {
    const angle = (at / DAYS) * 2 * Math.PI, [x, y] = [Math.sin(angle), -Math.cos(angle)];
    return h('line', { x1: 80 + 52 * x, y1: 80 + 52 * y, x2: 80 + 70 * x, y2: 80 + 70 * y, class: kind(one) });
  });
  return h('svg', { class: `dial ${level}`, viewBox: '0 0 160 160', role: 'img', 'aria-label': say('dial', { count: saved, days: DAYS }) }, ticks, h('circle', { cx: 80, cy: 80, r: 13 }));
}

// The last days of one source: the height shows the amount added.
function strip(all) {
  const of = days(all);
  const added = (one) => one.all.reduce((sum, info) => sum + info.bytes_stored, 0);
  const most = Math.max(1, ...of.map(added));
  const saved = of.filter((one) => one.all.length > 0).length;
  return h('svg', { class: 'strip', viewBox: '0 0 210 32', role: 'img', 'aria-label': say('strip', { count: saved, days: DAYS }) }, of.map((one, at) => {
    const height = one.all.length === 0 ? 3 : 6 + 26 * Math.sqrt(added(one) / most);
    return h('rect', { x: at * 7, y: 32 - height, width: 5, height, rx: 1.5, class: kind(one) });
  }));
}

const levels = { good: 'ok', advice: 'warn', damage: 'bad' };

// The one sentence, from the same findings as vault doctor and vault list.
function sentence(told, list) {
  const found = told.state.findings;
  const worst = found.some((one) => one.level === 'damage') ? 'bad' : found.some((one) => one.level === 'advice') || told.plan?.sources.some((one) => one.overdue) ? 'warn' : 'ok';
  const last = list.snapshots.at(-1);
  const key = list.snapshots.length === 0 ? 'state.empty' : `state.${worst}`;
  const count = found.filter((one) => one.level !== 'good').length;
  return { level: list.snapshots.length === 0 ? 'warn' : worst, head: say(key), text: last ? say('state.last', { when: ago(last.time), source: last.source, count: list.sources.size }) + (count ? ` ${say('state.see', { count })}` : '') : say('state.empty.text') };
}

function saveButton(names, label, kind = 'primary') {
  const press = button([icon('save'), label], async () => {
    press.disabled = true;
    try {
      const job = await act('save', typeof names === 'function' ? names() : names);
      location.hash = `#/activity/${job.id}`;
    } catch (error) {
      press.closest('.card').append(failed(error));
      press.disabled = false;
    }
  }, kind);
  return press;
}

function sourceRow(one, many, plan) {
  const last = one.all.at(-1);
  const rows = plan?.sources.filter((row) => row.source === one.source && one.host === known.status.host) ?? [];
  const level = last.verdict !== 'complete' || last.late > 0 ? 'warn' : rows.some((row) => row.overdue) ? 'warn' : 'ok';
  const word = last.late > 0 ? say('source.late', { count: last.late }) : last.verdict !== 'complete' ? say('source.partial', { count: last.skipped }) : rows.some((row) => row.overdue) ? say('source.overdue') : say('source.complete');
  const next = rows.length ? Math.min(...rows.map((row) => row.due_in_s)) : null;
  const address = `#/files?source=${encodeURIComponent(one.source)}&host=${encodeURIComponent(one.host)}`;
  return h('div', { class: 'src' },
    h('div', {}, h('b', {}, nameOfSource(one, many)), under(say('source.count', { count: one.all.length }))),
    strip(one.all),
    h('div', {}, pill(level, word), under(time(last.time, ago(last.time)), next !== null && `, ${next === 0 ? say('next.now') : say('next.in', { when: ago(new Date(Date.now() + next * 1000).toISOString()) })}`)),
    h('div', { class: 'num' }, size(last.bytes), under(say('files', { count: last.files }))),
    beside(to(address, say('source.open'), 'btn s'), !known.status.read_only && one.host === known.status.host && saveButton({ source: one.source, host: one.host }, say('save.one'), 's')));
}

function render(told, list) {
  const state = sentence(told, list);
  const many = new Set(list.snapshots.map((info) => info.host)).size > 1;
  const notes = told.state.findings.filter((one) => one.level !== 'good');
  const can = ['nothing', told.plan?.places.some((place) => place.removable) && 'eject', 'suspend', 'shutdown'].filter(Boolean);
  const then = h('select', { class: 'field s', 'aria-label': say('then.label') }, can.map((name) => h('option', { value: name }, say(`then.${name}`))));
  const own = [...list.sources.values()].some((one) => one.host === known.status.host);
  return [
    h('section', { class: 'card hero', 'aria-label': say('state.label'), 'data-level': state.level }, dial(list.snapshots, state.level), h('div', {},
      h('h1', {}, state.head), h('p', {}, state.text),
      beside(!known.status.read_only && told.plan && [saveButton(() => (then.value === 'nothing' ? {} : { then: then.value }), say('save.all')), then], list.snapshots.length > 0 && to('#/files', say('overview.files')), list.snapshots.length === 0 && !told.plan && to('#/guide', say('overview.guide')), told.running && to('#/activity', say('overview.running'), 'btn')))),
    notes.map((one) => note(levels[one.level], [h('b', {}, one.text), one.command && h('div', {}, h('code', {}, one.command))], to('#/health', say('overview.health'), 'btn s'))),
    own || list.sources.size > 0 ? h('section', { class: 'card flush', 'aria-label': say('overview.sources') }, [...list.sources.values()].map((one) => sourceRow(one, many, told.plan))) : null,
    told.drill && note(told.drill.failed ? 'bad' : 'ok', say('drill.last', { files: told.drill.files, when: ago(told.drill.time), failed: told.drill.failed })),
    told.plan && card(say('overview.places'), h('ul', { class: 'stack' }, told.plan.places.map((place) => h('li', { class: 'row' }, pill(place.state === 'there' ? 'ok' : 'warn', say(`place.${place.state}`)), h('b', {}, place.vault), h('span', { class: 'mute grow' }, place.place))))),
    list.snapshots.length > 0 && card(say('overview.lately'), h('ul', { class: 'log' }, list.snapshots.slice(-6).reverse().map((info) => h('li', {}, time(info.time), h('div', {}, say('lately', { source: info.source, count: info.files_new + info.files_changed, size: size(info.bytes_stored) }), ' ', h('a', { href: `#/files/${info.id}` }, say('lately.open'))))))),
  ];
}

export async function overview(main) {
  const place = fill(main, h('div'));
  const load = () => bring(place.firstChild, Promise.all([ask('overview'), snapshots()]), ([told, list]) => render(told, list));
  const again = () => Promise.all([ask('overview'), snapshots()]).then(([told, list]) => place.firstChild?.isConnected && fill(place.firstChild, render(told, list)), () => {});
  document.addEventListener('changed', again);
  document.addEventListener('run', again);
  await load();
  return () => { document.removeEventListener('changed', again); document.removeEventListener('run', again); };
}
