// The activity screen: current and past jobs of this page, runs of the schedule and of the command line.
import { act, aside, ask, bar, beside, bring, button, card, date, duration, empty, failed, fill, h, icon, items, known, note, part, pill, say, size, small, time, title, to, under } from './base.js';
import { counts, follow, problems, progress } from './restore.js';

const levelOf = { running: 'info', done: 'ok', failed: 'bad', stopped: 'warn' };
const verdicts = { complete: 'ok', partial: 'warn', failed: 'bad', damaged: 'bad', interrupted: 'warn' };

function jobTitle(job) {
  const name = job.kind === 'restore' && job.request.dry_run ? 'plan' : job.kind;
  return say(`kind.job.${name}`);
}

function runCard(run) {
  return part(say('run.label', { when: date(run.started) }), beside(pill(verdicts[run.verdict] ?? 'warn', say(`run.${run.verdict}`)), h('b', { class: 'grow' }, time(run.started)), aside(duration(new Date(run.finished) - new Date(run.started)))),
    h('ul', { class: 'log' }, run.results.map((one) => h('li', {}, h('span', {}, say(`result.state.${one.state}`)), h('div', {}, h('b', {}, say('run.to', { source: one.source, vault: one.vault })), one.snapshot && h('span', { class: 'mute' }, ' ', say('run.counts', { files: one.files_new + one.files_changed, size: size(one.bytes_stored) })), one.skipped > 0 && h('span', {}, ' ', one.snapshot ? h('a', { href: `#/files/${one.snapshot}?skipped=1` }, say('source.partial', { count: one.skipped })) : say('source.partial', { count: one.skipped })), one.error && h('div', { class: 'small' }, one.error), one.hint && under(one.hint))))),
    run.vaults.filter((one) => one.error).map((one) => h('p', { class: 'small' }, `${one.vault}: ${one.error}`)));
}

function result(job) {
  if (job.error) return note(job.state === 'stopped' ? 'warn' : 'bad', [h('b', {}, job.state === 'stopped' ? say(`job.${job.kind}.stopped`) : job.error.error), job.error.hint && under(job.error.hint)]);
  const told = job.result;
  if (!told) return null;
  if (job.kind === 'restore') return [counts(told), problems(told)];
  if (told.results) return runCard(told);
  if (job.kind === 'save') return h('p', {}, told.snapshot ? say('save.done', { files: told.snapshot.files_new + told.snapshot.files_changed, size: size(told.snapshot.bytes_stored) }) : say('save.unchanged'), told.snapshot && [' ', h('a', { href: `#/files/${told.snapshot.id}` }, say('lately.open'))]);
  if (job.kind === 'check') {
    const isLate = (one) => one.state === 'not arrived', late = told.findings.filter((one) => one.about === 'late');
    const waits = late.length > 0 || told.problems.some(isLate);
    return [note(told.damaged ? 'bad' : waits ? 'warn' : 'ok', [told.damaged ? say('check.damaged') : say('check.sound', { packs: told.packs, read: size(told.bytes_read) }), waits && h('div', {}, say('check.late'))]),
      h('ul', { class: 'changes' }, told.problems.map((one) => h('li', { class: isLate(one) ? 'm' : 'd' }, `${one.object}: ${isLate(one) ? say('check.late.object') : one.what}`)), late.map((one) => h('li', { class: 'm' }, one.what)))];
  }
  if (job.kind === 'drill') return note(told.failed ? 'bad' : told.late || !told.files ? 'warn' : 'ok', [say('drill.done', { files: told.files, size: size(told.bytes), failed: told.failed }), told.late > 0 && h('div', {}, say('drill.late', { count: told.late }))]);
  return null;
}

async function one(main, id) {
  const left = new AbortController(), place = h('div');
  fill(main, title(say('screen.activity'), to('#/activity', say('activity.all'))), place);
  await bring(place, ask('job', { id }), (job) => {
    const inside = h('section', { class: 'card stack', 'aria-label': jobTitle(job) });
    const show = (now) => fill(inside, beside(h('h2', { class: 'grow' }, jobTitle(now)), pill(levelOf[now.state], say(`state.${now.state}`))), small(time(now.started), now.state !== 'running' && `, ${duration(now.duration_ms)}`),
      now.state === 'running' && [progress(now), !known.status.read_only && button([icon('stop'), say('job.stop')], () => act('stop', { id }), 's'), small(say('job.goes_on'))],
      now.messages.length > 0 && items('job.messages', now.messages.map((text) => h('li', { class: 'm' }, text))), result(now));
    show(job);
    if (job.state === 'running') follow(id, show, left.signal).catch(() => {});
    return inside;
  });
  return () => left.abort();
}

// The current run, by any process: its progress, its results, and a button to stop it.
function nowCard(now, log) {
  const lane = (one) => h('li', {}, beside(h('b', { class: 'grow' }, one.source === null ? one.vault : say('run.to', one)), aside(one.phase ? say(`phase.${one.phase}`) : say('phase.begin'), ' ', say('job.counts', { files: one.files, size: size(one.bytes), time: duration(new Date(now.at) - new Date(one.since)) }))), bar(one.bytes_goal ? one.bytes : one.files, one.bytes_goal || one.files_goal, one.source === null ? one.vault : say('run.to', one)));
  const stop = button([icon('stop'), say('job.stop')], async () => { stop.disabled = true; await act('stop-run', { run: now.run }).catch((error) => stop.closest('.card').append(failed(error))); }, 's');
  const said = log.filter((line) => line.event === 'warning' || line.event === 'hook');
  return h('section', { class: 'card stack', 'aria-label': say('now.title') }, beside(h('h2', { class: 'grow' }, say('now.title')), pill('info', say(now.stopping ? 'now.stopping' : now.background ? 'now.schedule' : 'now.hand'))),
    small(time(now.started), ', ', say('now.count', { done: now.results.length, due: now.due })),
    now.works.length > 0 ? h('ul', { class: 'stack' }, now.works.map(lane)) : h('p', { class: 'mute' }, say('now.between')),
    now.results.length > 0 && h('ul', { class: 'log' }, now.results.map((one) => h('li', {}, h('span', {}, say(`result.state.${one.state}`)), h('b', {}, say('run.to', one))))),
    said.length > 0 && items('job.messages', said.map((line) => h('li', { class: 'm' }, line.text))),
    !known.status.read_only && !now.stopping && beside(stop, aside(say('now.stop.text'))));
}

export async function activity(main, { parts: [id] }) {
  if (id) return one(main, Number(id));
  const place = h('div'), runs = h('div'), going = h('div', {});
  fill(main, title(say('screen.activity')), going, place, h('h2', {}, say('activity.runs')), runs);
  let now = null, log = [];
  const draw = () => { if (going.isConnected) fill(going, !known.running ? null : now?.run ? nowCard(now, log) : note('ok', say('activity.running'))); };
  const look = () => ask('run').then((told) => { known.running = told.running; now = told.now; log = told.log; draw(); }, () => {});
  let asked = 0;
  const told = (event) => {
    const before = now;
    known.running = true;
    now = event.detail;
    // The log is requested less often than the progress.
    if (Date.now() - asked > 3000 || before?.run !== now.run) { asked = Date.now(); look(); } else draw();
  };
  const load = () => ask('jobs').then((told) => place.isConnected && fill(place, told.jobs.length === 0 ? card(null, empty(say('activity.none'))) : part(say('activity.jobs'), h('ul', { class: 'log' }, told.jobs.map((job) => h('li', {}, time(job.started), beside(h('a', { href: `#/activity/${job.id}` }, jobTitle(job)), pill(levelOf[job.state], say(`state.${job.state}`)), job.state === 'running' && aside(size(job.bytes)))))))), () => {});
  const old = () => bring(runs, ask('runs'), (told) => (told.runs.length === 0 ? card(null, empty(say('activity.noruns'))) : told.runs.slice(0, 30).map(runCard)));
  const turned = () => { look(); load(); if (!known.running) old(); };
  document.addEventListener('job', load);
  document.addEventListener('run', turned);
  document.addEventListener('now', told);
  await Promise.all([look(), load(), old()]);
  return () => { document.removeEventListener('job', load); document.removeEventListener('run', turned); document.removeEventListener('now', told); };
}
