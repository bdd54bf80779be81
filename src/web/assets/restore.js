// The restore screen: what and where to, the changes as a dry run shows them, then the work and its proof.
import { act, aside, ask, bar, beside, bring, button, card, date, decode, duration, empty, encode, failed, fill, h, icon, items, known, number, pill, raw, say, shown, size, small, snapshots, title, to } from './base.js';

// Waits until a job is over, and shows its progress.
export function follow(id, show, signal) {
  return new Promise((resolve, reject) => {
    const look = async () => {
      if (signal.aborted) return;
      try {
        const job = await ask('job', { id });
        show(job);
        if (job.state === 'running') setTimeout(look, 400); else resolve(job);
      } catch (error) { reject(error); }
    };
    look();
  });
}

export function progress(job) {
  const goal = job.bytes_goal || job.files_goal, done = job.bytes_goal ? job.bytes : job.files;
  return h('div', { class: 'stack' }, bar(done, goal, say('job.progress')),
    small(job.phase ? say(`phase.${job.phase}`) : say('phase.begin'), ' ', say('job.counts', { files: job.files, size: size(job.bytes), time: duration(job.duration_ms) })));
}

// The numbers of a restore or of its dry run.
export function counts(result) {
  const row = (key, value, more) => value > 0 && [h('dt', {}, say(`result.${key}`)), h('dd', {}, number(value), more ? `, ${more}` : '')];
  return h('dl', {}, row('files', result.files, size(result.bytes)), row('folders', result.folders), [h('dt', {}, say('result.written')), h('dd', {}, size(result.bytes_written))],
    row('unchanged', result.files_unchanged), row('kept', result.files_kept), row('copies', result.copies), row('deleted', result.deleted), row('stays', result.kept_count), row('verified', result.files_verified), row('problems', result.problem_count));
}
export function problems(result) {
  return [result.problems.length > 0 && items('result.problems', result.problems.map((one) => h('li', { class: one.damage ? 'd' : 'm' }, `${shown(one.path)}: ${one.what}`))),
    Object.entries(result.not_permitted).map(([what, count]) => small(say('result.not_permitted', { what, count })))];
}
function changes(result) {
  const mark = { '+': 'a', M: 'm', '-': 'd' };
  return [items('plan.changes', result.changes.map((one) => h('li', { class: mark[one.change] }, `${one.change}  ${shown(one.path)}${one.folder ? '/' : ''}`))),
    result.change_count > result.changes.length && small(say('plan.more', { count: result.change_count - result.changes.length }))];
}

// Chooses a folder by browsing.
function picker(chosen) {
  const place = h('div');
  const look = (path) => bring(place, act('folders', path === null ? {} : { path }), (told) => {
    chosen(told.path);
    const below = (name) => (raw(told.path).endsWith('/') ? raw(told.path) : `${raw(told.path)}/`) + name;
    return h('div', { class: 'card flush' }, h('div', { class: 'dated' }, told.parent !== null && button([icon('up'), say('picker.up')], () => look(told.parent), 's'), h('b', { class: 'grow' }, shown(told.path)), told.free !== null && aside(say('picker.free', { size: size(told.free) }))),
      h('ul', { class: 'changes', 'aria-label': say('picker.label') }, told.folders.filter((name) => typeof name === 'string' && !name.startsWith('.')).map((name) => h('li', {}, h('button', { type: 'button', class: 'btn s', onclick: () => look(below(name)) }, icon('folder'), shown(name))))));
  });
  look(null);
  return place;
}

const radio = (group, value, text, hint, checked, onchange) => h('label', { class: 'line' }, h('input', { type: 'radio', name: group, value, checked, onchange }), h('span', {}, text, hint && aside(hint)));
const check = (name, text, hint, onchange) => h('label', { class: 'line' }, h('input', { type: 'checkbox', name, onchange }), h('span', {}, text, hint && aside(hint)));

export async function restore(main, { parts: [id], query }) {
  const list = await snapshots();
  const info = list.snapshots.find((one) => one.id === id) ?? list.snapshots.at(-1);
  if (!info || known.status.read_only) { fill(main, title(say('screen.restore')), card(null, empty(known.status.read_only ? say('restore.readonly') : say('files.none')))); return; }
  const path = decode(query.get('path') ?? ''), what = encode(path) ? shown(path) : say('restore.all');
  const isOwn = info.host === known.status.host, left = new AbortController();
  let plan = null;
  const field = h('input', { class: 'field', id: 'folder', autocomplete: 'off', spellcheck: 'false', value: `${known.status.home ?? ''}/restored ${date(info.time).replaceAll(/[/:]/g, '.')}`, oninput: changed });
  const below = h('div'), into = h('div', { class: 'stack' }, h('label', { for: 'folder' }, say('restore.folder')), beside(h('div', { class: 'grow' }, field), button(say('restore.choose'), () => fill(below, picker((chosen) => { field.value = `${raw(chosen).replace(/\/$/, '')}/${say('restore.name')}`; changed(); })), 's')), below);
  const existing = h('fieldset', {}, h('legend', {}, say('restore.existing')), ['if-changed', 'keep-newer-copy', 'never'].map((one) => radio('overwrite', one, say(`overwrite.${one}`), say(`overwrite.${one}.hint`), one === 'if-changed', changed)));
  const remove = check('delete', say('restore.delete'), say('restore.delete.hint'), changed);
  const form = h('form', { onsubmit: (event) => event.preventDefault() },
    h('fieldset', {}, h('legend', {}, say('restore.where')), radio('to', 'folder', say('restore.own'), say('restore.own.hint'), true, changed), isOwn && radio('to', 'in-place', say('restore.inplace'), say('restore.inplace.hint'), false, changed)),
    into, existing, remove, check('verify', say('restore.verify'), say('restore.verify.hint'), changed));
  const outcome = h('div', { 'aria-live': 'polite' });
  const request = () => {
    const data = new FormData(form), inPlace = data.get('to') === 'in-place';
    return { snapshot: info.id, path, to: inPlace ? 'in-place' : { folder: field.value }, overwrite: data.get('overwrite'), delete: data.get('delete') !== null, verify: data.get('verify') !== null };
  };
  function changed() {
    plan = null;
    into.hidden = new FormData(form).get('to') === 'in-place';
    fill(outcome, look);
  }
  const look = button(say('restore.look'), tryIt, 'primary');
  async function work(body, then) {
    const stop = button([icon('stop'), say('job.stop')], () => act('stop', { id: begun.id }), 's');
    let begun;
    const bars = h('div');
    fill(outcome, card(say(body.dry_run ? 'plan.working' : 'restore.working'), bars, stop));
    try {
      begun = await act('restore', body);
      const job = await follow(begun.id, (now) => fill(bars, progress(now)), left.signal);
      if (job.state === 'done') then(job); else fill(outcome, failed(job.error ? { message: job.error.error, hint: job.error.hint } : { message: say('job.restore.stopped') }), look);
    } catch (error) { fill(outcome, failed(error), look); }
  }
  function tryIt() {
    const body = request();
    work({ ...body, dry_run: true }, (job) => {
      plan = { id: job.id, body };
      const result = job.result, nothing = result.change_count === 0;
      fill(outcome, h('section', { class: 'card stack', 'aria-label': say('plan.title') }, h('h2', {}, say('plan.title')), h('p', {}, nothing ? say('plan.nothing') : say('plan.text', { count: result.change_count })), counts(result), !nothing && changes(result), problems(result),
        beside(button([icon('restore'), say('restore.do')], begin, 'primary'), button(say('restore.again'), tryIt))));
      outcome.querySelector('button.primary').focus();
    });
  }
  function begin() {
    work({ ...plan.body, dry_run: false, plan: plan.id }, (job) => {
      const result = job.result, level = result.problem_count > 0 ? (result.problems.some((one) => one.damage) ? 'bad' : 'warn') : 'ok';
      fill(outcome, h('section', { class: 'card stack', 'aria-label': say('restore.done') }, h('h2', {}, pill(level, say(level === 'ok' ? 'restore.done' : 'restore.done.but'))), h('p', {}, say('restore.proof', { files: result.files, size: size(result.bytes), where: plan.body.to === 'in-place' ? say('restore.inplace') : plan.body.to.folder, time: duration(job.duration_ms) })), counts(result), problems(result), to(`#/activity/${job.id}`, say('restore.report'))));
    });
  }
  fill(main, title(say('screen.restore')), h('div', { class: 'two' }, h('div', {}, card(say('restore.what'), h('p', {}, h('b', {}, what)), h('p', { class: 'mute' }, say('restore.from', { source: info.source, host: info.host, when: date(info.time) })), to(`#/files/${info.id}${encode(path) ? `?path=${encode(path)}` : ''}`, say('restore.other'), 'btn s')), card(null, form)), outcome));
  changed();
  return () => left.abort();
}
