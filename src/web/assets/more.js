// The less frequent screens: search, comparison, retention, health, keys, settings, first steps.
import { act, ago, ask, beside, bring, button, card, date, dayKey, decode, empty, encode, fact, failed, fill, h, icon, items, known, note, number, part, pill, put, say, shown, size, small, snapshots, table, time, title, to, under, view, waiting } from './base.js';

export async function search(main, { query }) {
  const list = await snapshots();
  const byId = new Map(list.snapshots.map((info) => [info.id, info])), found = h('div', { 'aria-live': 'polite' });
  const text = decodeURIComponent(query.get('q') ?? '');
  const field = h('input', { type: 'search', class: 'field', value: text, 'aria-label': say('search.label'), placeholder: say('search.hint'), autocomplete: 'off', spellcheck: 'false' });
  const form = h('form', { role: 'search', class: 'row', onsubmit: (event) => { event.preventDefault(); location.hash = `#/search?q=${encodeURIComponent(field.value.trim())}`; } }, h('div', { class: 'grow' }, field), h('button', { class: 'btn primary' }, icon('search'), say('search.go')));
  fill(main, title(say('screen.search')), card(null, form), found);
  if (!text) { field.focus(); return; }
  await bring(found, ask('find', { pattern: text }), (told) => (told.matches.length === 0 ? card(null, empty(say('search.none', { text }))) : [small(say('search.found', { count: told.matches.length }), told.more ? ` ${say('search.more')}` : ''),
    h('section', { class: 'card flush scroll', tabindex: '0', 'aria-label': say('search.matches') }, table(['name', 'r size', 'wide changed', 'in'], h('tbody', {}, told.matches.map((one) => {
      const version = one.versions[0], newest = byId.get(version.snapshots[0]), count = new Set(one.versions.flatMap((each) => each.snapshots)).size;
      return h('tr', {}, h('td', {}, h('a', { class: 'name', href: `#/files/${version.snapshots[0]}?path=${encode(one.path)}` }, icon(version.kind === 'directory' ? 'folder' : 'file'), h('span', {}, shown(one.path)))), h('td', { class: 'r' }, version.kind === 'file' ? size(version.size) : ''), h('td', { class: 'wide' }, time(version.mtime)), h('td', {}, newest && ago(newest.time), under(say('search.in', { count }), one.versions.length > 1 ? `, ${say('search.versions', { count: one.versions.length })}` : '')));
    }))))]));
}

export async function compare(main, { parts: [old, now], query }) {
  const list = await snapshots(), all = list.snapshots;
  if (all.length < 2) { fill(main, title(say('screen.compare')), card(null, empty(say('compare.few')))); return; }
  const newest = all.find((info) => info.id === now) ?? all.at(-1), own = list.sources.get(JSON.stringify([newest.source, newest.host])).all;
  const before = all.find((info) => info.id === old) ?? own.at(-2) ?? all[0];
  const choose = (chosen, label, go) => {
    const select = h('select', { class: 'field', 'aria-label': label, onchange: (event) => { location.hash = go(event.target.value); } }, [...all].reverse().map((info) => h('option', { value: info.id }, `${date(info.time)}, ${info.source}`)));
    select.value = chosen.id;
    return select;
  };
  const place = h('div');
  fill(main, title(say('screen.compare')), card(null, beside(choose(before, say('compare.old'), (id) => `#/compare/${id}/${newest.id}`), icon('right'), choose(newest, say('compare.new'), (id) => `#/compare/${before.id}/${id}`))), place);
  const level = { added: 'a', removed: 'd', content: 'm', metadata: '', kind: 'm', left_out: '', unread: '', not_mounted: '' };
  await bring(place, ask('diff', { old: before.id, new: newest.id, path: decode(query.get('path') ?? '') }), (told) => {
    const sums = told.summary;
    return [card(null, h('div', { class: 'facts' }, ['added', 'changed', 'removed', 'metadata'].map((name) => fact(number(sums[name]), say(`diff.${name}`))), fact(size(sums.bytes_new), say('diff.bytes')))),
      told.differences.length === 0 ? card(null, empty(say('diff.same'))) : card(say('compare.paths'), items('compare.paths', told.differences.map((one) => h('li', {}, h('span', { class: level[one.change] }, say(`mark.${one.change}`)), ' ', h('a', { href: `#/files/${one.new ? newest.id : before.id}?path=${encode(one.path)}` }, shown(one.path)), one.change === 'metadata' ? ` (${one.fields.join(', ')})` : ''))), told.more && small(say('compare.more')))];
  });
}

const RULES = { last: 0, daily: 7, weekly: 5, monthly: 12, yearly: 3 };
let rules = { ...RULES };

// A calendar of the snapshots that stay and those that go.
function calendar(told) {
  const byDay = Map.groupBy(told.snapshots, (one) => dayKey(one.time)), months = new Set([...byDay.keys()].map((key) => key.slice(0, 7)));
  return h('div', { class: 'months' }, [...months].sort().reverse().slice(0, 24).map((month) => {
    const [year, number] = month.split('-').map(Number), first = new Date(year, number - 1, 1), count = new Date(year, number, 0).getDate();
    const blank = Array.from({ length: (first.getDay() + 6) % 7 }, () => h('span'));
    return h('section', { 'aria-label': month }, h('h3', {}, first.toLocaleDateString(undefined, { month: 'long', year: 'numeric' })), h('div', { class: 'cal' }, blank, Array.from({ length: count }, (_, at) => {
      const all = byDay.get(`${month}-${String(at + 1).padStart(2, '0')}`) ?? [], stays = all.filter((one) => one.keep);
      const text = all.length === 0 ? null : stays.length > 0 ? say('keep.stays', { count: stays.length, why: [...new Set(stays.flatMap((one) => one.reasons))].join(', ') }) : say('keep.goes', { count: all.length });
      return h('span', { class: all.length === 0 ? '' : stays.length > 0 ? 'stay' : 'go', title: text, role: text ? 'img' : undefined, 'aria-label': text ? `${at + 1}: ${text}` : undefined }, at + 1);
    })));
  }));
}

export async function keep(main) {
  const place = h('div'), left = { timer: 0 };
  const plan = (told, free) => [card(null, h('div', { class: 'facts' }, fact(number(told.snapshots.length - told.forgotten), say('keep.stay')), fact(number(told.forgotten), say('keep.go')), fact(free, say('keep.free')))), card(say('keep.calendar'), calendar(told))];
  const load = async () => {
    const wish = { rules: Object.fromEntries(Object.entries(rules).filter(([, count]) => count > 0)) };
    let first;
    // All folders are read for the space.
    if (await bring(place, act('keep', { ...wish, estimate: false }), (told) => (first = plan(told, '…')))) bring(place, act('keep', wish), (told) => plan(told, size(told.bytes_deleted + told.bytes_waiting)), first);
  };
  const field = (name) => h('label', { class: 'row' }, h('span', { class: 'grow' }, say(`rule.${name}`)), h('input', { type: 'number', class: 'field s', min: 0, max: 1000, value: rules[name], oninput: (event) => { rules[name] = Math.max(0, Math.floor(Number(event.target.value) || 0)); clearTimeout(left.timer); left.timer = setTimeout(load, 300); show(); } }));
  const line = view('keep.command');
  const show = () => { line.textContent = `vault prune ${Object.entries(rules).filter(([, count]) => count > 0).map(([name, count]) => `--keep${name === 'last' ? '' : `-${name}`} ${count}`).join(' ')} --dry-run`; };
  show();
  fill(main, title(say('screen.keep')), h('div', { class: 'two' }, card(say('keep.rules'), h('div', { class: 'stack' }, Object.keys(RULES).map(field)), small(say('keep.text')), line), place));
  await load();
  return () => clearTimeout(left.timer);
}

const levels = { good: 'ok', advice: 'warn', damage: 'bad' };
export async function health(main) {
  const place = h('div'), list = await snapshots();
  const begin = (kind, body, label, name) => !known.status.read_only && button([icon(name), label], async () => { try { location.hash = `#/activity/${(await act(kind, body)).id}`; } catch (error) { fill(main, failed(error)); } });
  fill(main, title(say('screen.health'), begin('check', {}, say('health.check'), 'health'), begin('check', { sample: 10 }, say('health.sample'), 'search'), begin('drill', {}, say('health.drill'), 'restore')), place);
  const found = (told, heading = true) => {
    const order = ['damage', 'advice', 'good'], all = told.findings.toSorted((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
    return [heading && h('h2', {}, say(told.well ? 'health.well' : all[0].level === 'damage' ? 'health.bad' : 'health.advice')), all.map((one) => note(levels[one.level], [one.text, one.command && h('div', {}, h('code', {}, one.command))])),
      list.findings.length > 0 && card(say('health.known'), h('ul', { class: 'stack' }, list.findings.map((one) => h('li', {}, h('b', {}, one.what), under(say('health.since', { when: date(one.since), ends: one.ends }))))))];
  };
  // First what is known, then what all folders say: only they can say that all is well.
  let first;
  if (await bring(place, ask('overview'), ({ state }) => (first = [found(state, !state.well), waiting()]))) bring(place, ask('doctor'), found, first);
}

// A form that changes the keys. The user has to enter a password each time.
function keyForm(kind, slot, again) {
  const result = h('div', { 'aria-live': 'polite' }), id = `key-${kind}`;
  const secret = (name) => [h('label', { for: `${id}-${name}` }, say(`keyform.${name}`)), h('input', { id: `${id}-${name}`, name, type: 'password', class: 'field', autocomplete: 'off', required: true })];
  const isNew = kind !== 'remove';
  const form = h('form', { class: 'stack', onsubmit: async (event) => {
    event.preventDefault();
    const data = new FormData(form), body = { password: data.get('password') };
    if (isNew && data.get('new') !== data.get('repeat')) { fill(result, failed({ message: say('keyform.differ') })); return; }
    if (isNew) body.new = data.get('new');
    if (kind === 'add' && data.get('label')) body.label = data.get('label');
    if (slot) body.id = slot.id;
    const press = form.querySelector('button');
    press.disabled = true;
    try {
      const told = await act(`key-${kind}`, body);
      form.reset();
      await again(say(`keyform.${kind}.done`), told.waiting?.length ? say('keyform.waiting', { count: told.waiting.length }) : '');
    } catch (error) {
      fill(result, failed(error.code === 12 ? { message: say('keyform.wrong') } : error));
    }
    press.disabled = false;
  } }, kind === 'add' && [h('label', { for: `${id}-label` }, say('keyform.label')), h('input', { id: `${id}-label`, name: 'label', class: 'field', autocomplete: 'off' })],
  secret('password'), isNew && [secret('new'), secret('repeat'), small(say('keyform.advice'))], slot && note('warn', say('keyform.remove.text', { label: slot.label })),
  h('button', { class: `btn ${isNew ? 'primary' : ''}` }, say(`keyform.${kind}.go`)), result);
  return part(say(`keyform.${kind}`), h('h2', {}, say(`keyform.${kind}`)), form);
}

export async function keys(main) {
  const place = h('div'), work = h('div'), told = h('div', { 'aria-live': 'polite' });
  const choose = (kind, slot) => { fill(work, keyForm(kind, slot, again)); work.querySelector('input').focus(); };
  const change = !known.status.read_only && [button([icon('key'), say('keyform.add')], () => choose('add')), button(say('keyform.passwd'), () => choose('passwd'))];
  fill(main, title(say('screen.keys'), change), told, work, place);
  const again = async (text, more) => { fill(work); fill(told, note('ok', [text, more && under(more)])); await load(); };
  const load = () => bring(place, ask('keys'), (told) => [h('section', { class: 'card flush scroll', tabindex: '0', 'aria-label': say('screen.keys') }, table(['key', 'label', 'wide made', 'state', ...(known.status.read_only ? [] : ['change'])], h('tbody', {}, told.slots.map((one) => h('tr', {}, h('td', {}, say(`key.${one.purpose}`), h('div', { class: 'mono mute' }, one.id.slice(0, 8))), h('td', {}, one.label), h('td', { class: 'wide' }, time(one.created)), h('td', {}, one.state === 'valid' && one.copies >= 2 ? pill('ok', say('key.good')) : pill('warn', say(one.state === 'valid' ? 'key.copy' : `key.state.${one.state}`))), !known.status.read_only && h('td', { class: 'r' }, button(say('keyform.remove.go'), () => choose('remove', one), 's'))))))),
    told.slots.every((one) => one.purpose !== 'recovery') && note('warn', [say('key.none'), h('div', {}, h('code', {}, 'vault key add --recovery-key --label paper'))]), small(say('key.text'))]);
  await load();
}

export async function settings(main) {
  const place = h('div');
  fill(main, title(say('screen.settings')), place);
  await bring(place, ask('settings'), (told) => {
    const result = h('div', { 'aria-live': 'polite' }), field = h('textarea', { class: 'field', id: 'config', spellcheck: 'false', readonly: known.status.read_only });
    field.value = told.text;
    let seen = told.hash;
    const show = (now) => fill(result, now.mistakes.map((one) => note('bad', say('settings.mistake', one))), now.warnings.map((text) => note('warn', text)), now.mistakes.length === 0 && note('ok', say('settings.sound')));
    const send = (write) => act('configure', { text: field.value, hash: seen, write }).then((now) => { show(now); if (write && now.mistakes.length === 0) { seen = now.hash; put(result, note('ok', say('settings.written', { path: now.config }))); } }, (error) => fill(result, failed(error)));
    show(told);
    return [card(null, h('label', { for: 'config' }, say('settings.text', { path: told.config })), field, !known.status.read_only && beside(button(say('settings.check'), () => send(false)), button(say('settings.write'), () => send(true), 'primary'))), result];
  });
}

export async function guide(main) {
  const step = (name, command) => h('li', { class: 'card' }, h('h2', {}, say(`guide.${name}`)), h('p', {}, say(`guide.${name}.text`)), command && view('guide.command', command));
  fill(main, title(say('screen.guide')), h('ol', {}, step('what', `vault config init\nvault config check`), step('save', 'vault run'), step('schedule', 'vault schedule install'), step('recovery', 'vault key add --recovery-key --label paper'), step('try', 'vault restore latest --to ~/back --verify')), to('#/settings', say('guide.settings'), 'btn primary'));
}
