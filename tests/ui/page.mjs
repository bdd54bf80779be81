// The page in a real browser: every screen in light and dark and on a phone, by the keyboard, and a restore to the last byte.
//
// node tests/ui/page.mjs VAULT FOLDER: the program, and a folder with node_modules (playwright-core, axe-core) in which
// screenshots are left. Prints one line for each thing that was seen, and ends with 1 if anything was not as it should be.
import { execFileSync, spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const [program, folder] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(join(folder, 'index.js'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const browserPath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);

let passed = 0;
const failures = [];
function check(what, is, more = '') {
  if (is) passed += 1; else { failures.push(what); console.log(`FAILED ${what} ${more}`); }
}

// A vault with a month of snapshots, one of them partial, and names that are meant to do harm.
const home = mkdtempSync(join(tmpdir(), 'vault-page-'));
const env = { PATH: process.env.PATH, HOME: home, LANG: 'en_US.UTF-8', TZ: 'UTC', VAULT_PASSWORD: 'only for this test', VAULT_REPO: join(home, 'store'), VAULT_STATE_DIR: join(home, 'state') };
const vault = (...args) => execFileSync(program, args, { env, cwd: home, encoding: 'utf8' });
const source = join(home, 'Documents');
const write = (name, text) => { mkdirSync(join(source, name, '..'), { recursive: true }); writeFileSync(join(source, name), text); };
const HOSTILE = '<img src=x onerror="document.title=`owned`">.txt';
const PIXEL = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
vault('init');
write('letters/to the bank.txt', 'Dear bank,\n\nfirst draft.\n\nYours\n');
write(HOSTILE, '<script>document.title="owned"</script>');
write('letters/a\u202etxt.exe', 'x');
write('reports/<b onclick=document.title=`owned`>.bin', Buffer.alloc(90000, 'hostile '));
write('picture.png', PIXEL);
for (let number = 0; number < 700; number += 1) write(`many/file ${String(number).padStart(4, '0')}.txt`, `content ${number}`);
const DAY = 86400000, now = Date.now();
for (let age = 29; age >= 1; age -= 1) {
  if (age % 7 === 3) continue;
  write('letters/to the bank.txt', `Dear bank,\n\ndraft ${30 - age}.\n\nYours\n`);
  if (age % 5 === 0) write(`reports/${age}.bin`, Buffer.alloc(200000 + age * 9000, `${age} `));
  vault('snapshot', source, '--source', 'Documents', '--time', new Date(now - age * DAY).toISOString());
}
write('Pictures.txt', 'x');
vault('snapshot', join(source, 'many'), '--source', 'Many');

const args = ['ui', '--no-open'];
const server = spawn(program, args, { env, cwd: home, stdio: ['ignore', 'pipe', 'pipe'] });
let said = '';
server.stderr.on('data', (data) => { said += data; });
const address = await new Promise((found, lost) => {
  let text = '';
  server.stdout.on('data', (data) => { text += data; const match = /http:\/\/\S+/.exec(text); if (match) found(match[0]); });
  server.on('exit', () => lost(new Error(`it ended: ${text}${said}`)));
});
const origin = new URL(address).origin;

const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, locale: 'en-US', timezoneId: 'UTC', reducedMotion: 'reduce', acceptDownloads: true });
const noise = [], abroad = [];
function watch(page) {
  page.on('console', (message) => { if (!/401 \(Unauthorized\)/.test(message.text()) || !page.expects401) noise.push(message.text()); });
  page.on('pageerror', (error) => noise.push(String(error.stack)));
  page.on('request', (request) => { if (!request.url().startsWith(origin) && !request.url().startsWith('blob:') && !request.url().startsWith('data:')) abroad.push(request.url()); });
}
const page = await context.newPage();
watch(page);

async function go(hash, on = page) {
  await on.evaluate((to) => { delete document.body.dataset.ready; if (location.hash === to) dispatchEvent(new HashChangeEvent('hashchange')); else location.hash = to; }, hash);
  await on.waitForFunction((to) => document.body.dataset.ready === to && !document.querySelector('[aria-busy], main .waiting') && !document.querySelector('main .facts')?.textContent.includes('…'), hash, { timeout: 30000 });
}

const begun = Date.now();
await page.goto(address);
await page.waitForFunction(() => document.body.dataset.ready && !document.querySelector('[aria-busy]'));
console.log(`first screen after ${Date.now() - begun} ms`);
check('the token is erased from the address', !page.url().includes('token'), page.url());
check('no script can read the cookie', await page.evaluate(() => document.cookie) === '');
check('the overview says how things stand', /saved|Saved|damaged/.test(await page.textContent('h1')));
await page.evaluate(() => { const script = document.createElement('script'); script.textContent = 'document.title = "owned"'; document.body.append(script); });
noise.splice(0, noise.filter((text) => /Content Security Policy/.test(text)).length);
check('no script of the document runs', await page.title() !== 'owned');

const list = JSON.parse(vault('list', '--json')).snapshots.filter((info) => info.source === 'Documents');
const last = list.at(-1).id, before = list.at(-3).id;
const screens = {
  overview: '#/', files: `#/files/${last}`, folder: `#/files/${last}?path=Documents/many`, file: `#/files/${last}?path=Documents/letters/to%20the%20bank.txt`, hostile: `#/files/${last}?path=Documents`,
  restore: `#/restore/${last}?path=Documents/letters`, activity: '#/activity', search: '#/search?q=bank', compare: `#/compare/${before}/${last}`, keep: '#/keep', space: '#/space', news: '#/space?new=1', health: '#/health', keys: '#/keys', settings: '#/settings', guide: '#/guide',
};
const shots = join(folder, 'screens');
rmSync(shots, { recursive: true, force: true });
mkdirSync(shots, { recursive: true });
for (const [scheme, width, height] of [['light', 1280, 860], ['dark', 1280, 860], ['light', 360, 800]]) {
  await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
  await page.setViewportSize({ width, height });
  for (const [name, hash] of Object.entries(screens)) {
    const since = Date.now();
    await go(hash);
    const took = Date.now() - since, at = `${name}, ${scheme}, ${width}`;
    if (width === 1280 && scheme === 'light') console.log(`${name}: ${took} ms`);
    await page.screenshot({ path: join(shots, `${name}-${width < 500 ? 'phone' : scheme}.png`), fullPage: true });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(`${at}: nothing is wider than the window`, over <= 0, `${over} px`);
    check(`${at}: it has one heading`, (await page.locator('h1').count()) === 1);
    check(`${at}: nothing is said by its key`, !/\b(state|source|restore|column|screen|file|diff|space)\.[a-z]+\b/.test(await page.innerText('main')), await page.innerText('main'));
    if (!(await page.evaluate(() => 'axe' in window))) await context.addInitScript(''), await page.evaluate(axe).catch(() => {});
    const found = await page.evaluate(() => window.axe?.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
    check(`${at}: axe ran`, Boolean(found));
    for (const violation of found?.violations ?? []) check(`${at}: ${violation.id}`, false, violation.nodes.map((node) => `${node.html.slice(0, 160)} ${node.failureSummary.split('\n').slice(1, 3).join(' ')}`).slice(0, 3).join('\n    '));
  }
}
await page.emulateMedia({ colorScheme: 'light' });
await page.setViewportSize({ width: 1280, height: 860 });
check('names of files are only text', await page.title() !== 'owned' && (await page.locator('main img').count()) === 0);

// What takes long on a large vault follows what is known at once.
await go('#/keep');
check('the space follows the plan', /\d [KMG]?i?B/.test(await page.innerText('main .facts')), await page.innerText('main .facts'));
await go('#/health');
check('all folders were read for the health', /snapshots? needs? /.test(await page.innerText('main')), await page.innerText('main'));

// The path stays when the date moves, and the browser goes back.
await go(`#/files/${last}?path=Documents/letters`);
await page.locator('.ribbon button[aria-current]').focus();
await page.keyboard.press('ArrowLeft');
await page.waitForFunction((id) => !location.hash.includes(id) && document.body.dataset.ready === location.hash, last);
check('the date moved and the path stayed', page.url().endsWith('?path=Documents/letters'), page.url());
await page.goBack();
await page.waitForFunction((id) => location.hash.includes(id), last);
await go(screens.file);
await page.getByRole('button', { name: 'Versions' }).click();
await page.waitForSelector('.vers li');
check('each version is listed once', (await page.locator('.vers li').count()) > 20);
await page.getByRole('button', { name: 'What changed' }).first().click();
await page.waitForSelector('pre.view .add');
check('lines that differ are shown', /draft/.test(await page.textContent('pre.view .add')));
await page.keyboard.press('Escape');
await page.waitForFunction(() => !document.querySelector('.panel'));
const downloading = page.waitForEvent('download');
await go(`#/files/${last}?path=${encodeURIComponent(`Documents/${HOSTILE}`).replaceAll("'", '%27')}`);
await page.getByRole('link', { name: 'Download', exact: true }).click();
const download = await downloading;
check('a download is the file', readFileSync(await download.path(), 'utf8') === '<script>document.title="owned"</script>');
check('a download has a harmless name', !/[<>"]/.test(download.suggestedFilename()), download.suggestedFilename());
const archiving = page.waitForEvent('download');
await page.getByRole('link', { name: 'Download this folder' }).click();
const archive = await archiving;
check('a folder is downloaded as an archive', archive.suggestedFilename() === 'Documents.tar' && readFileSync(await archive.path()).includes('Documents/letters/to the bank.txt'), archive.suggestedFilename());
await go(`#/files/${last}?path=Documents/picture.png`);
check('a picture is painted', (await page.locator('canvas').count()) === 1);
await go('#/');
await page.keyboard.press('/');
await page.waitForFunction(() => location.hash.startsWith('#/search') && document.activeElement?.type === 'search');
await page.keyboard.type('bank');
await page.keyboard.press('Enter');
await page.waitForSelector('table a');
check('a search by the keyboard finds', /to the bank/.test(await page.textContent('table')));
await go(`#/files/${last}?path=Documents/many`);
await page.locator('tbody a').first().focus();
await page.keyboard.press('ArrowDown');
check('arrows go through a listing', await page.evaluate(() => document.activeElement === document.querySelectorAll('tbody a')[1]));
await page.getByRole('button', { name: 'Show more' }).click();
await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 700);

// A restore in place, tried first, then done, compared to the last byte.
write('letters/to the bank.txt', 'spoilt');
write('letters/new.txt', 'written since');
utimesSync(join(source, 'letters/to the bank.txt'), new Date(0), new Date(0));
await go(`#/restore/${last}?path=Documents/letters`);
await page.getByLabel('Where it came from').check();
await page.getByLabel('Delete what was not there then').check();
await page.getByRole('button', { name: 'See what will happen' }).click();
await page.waitForSelector('text=What will happen');
const plan = await page.innerText('section[aria-label="What will happen"]');
check('the plan names what changes', plan.includes('to the bank.txt') && plan.includes('new.txt'), plan);
check('the trial wrote nothing', readFileSync(join(source, 'letters/to the bank.txt'), 'utf8') === 'spoilt' && existsSync(join(source, 'letters/new.txt')));
await page.screenshot({ path: join(shots, 'restore-plan.png'), fullPage: true });
await page.getByRole('button', { name: 'Do it' }).click();
await page.waitForSelector('section[aria-label="Restored."]');
await page.screenshot({ path: join(shots, 'restore-done.png'), fullPage: true });
check('the file is as it was', readFileSync(join(source, 'letters/to the bank.txt'), 'utf8') === execFileSync(program, ['cat', `${last}:Documents/letters/to the bank.txt`], { env, encoding: 'utf8' }));
check('what was not there then is gone', !existsSync(join(source, 'letters/new.txt')));

// Space: a map that says the same in words, by the keyboard, and what is new.
await go('#/space');
const tiles = page.locator('.map a');
const areas = await page.evaluate(() => [...document.querySelectorAll('.map li')].map((one) => { const box = one.getBoundingClientRect(); return box.width * box.height; }));
const field = await page.evaluate(() => { const box = document.querySelector('.map').getBoundingClientRect(); return box.width * box.height; });
check('the map is filled', Math.abs(areas.reduce((sum, one) => sum + one, 0) / field - 1) < 0.01, `${areas} of ${field}`);
check('larger folders have larger tiles', areas.length > 3 && areas.every((one, at) => at === 0 || one <= areas[at - 1] * 1.001), `${areas}`);
check('each tile says what it is', /^Documents\/reports\/25\.bin: 415\.0 KiB, \d+%$/.test(await tiles.first().getAttribute('aria-label')), await tiles.first().getAttribute('aria-label'));
check('a hostile name in the map is only text', (await page.innerText('.map')).includes('<b onclick=') && (await page.title()) !== 'owned');
await page.locator('summary').first().click();
check('the map is there as a table', await page.locator('details[open] tbody tr').count() === areas.length);
await tiles.first().focus();
await page.keyboard.press('ArrowRight');
const reached = await page.evaluate(() => { const all = [...document.querySelectorAll('.map a')], at = all.indexOf(document.activeElement); return at > 0 && all[at].getBoundingClientRect().left > all[0].getBoundingClientRect().left; });
check('arrows go through the map', reached);
await page.getByRole('button', { name: 'New since a month' }).click();
await page.waitForSelector('text=What was new or changed since');
check('what is new is mapped, and has an address', page.url().endsWith('#/space?new=1') && (await page.getAttribute('.map a', 'aria-label')).includes('Documents/reports'), page.url());
await page.getByLabel('Whose files').selectOption({ label: 'Many' });
await page.waitForSelector('text=There is nothing.');
await page.getByRole('button', { name: 'Size', exact: true }).click();
await page.waitForFunction(() => document.querySelector('.map a')?.getAttribute('aria-label').includes('many'));
check('one source is mapped', (await tiles.count()) === 1, await page.innerText('.map'));
const line = await page.getAttribute('svg.line', 'aria-label');
await page.getByRole('button', { name: 'Month', exact: true }).click();
check('growth is said in words', /^From .* until now: from .* to .* [KM]iB$/.test(line) && /^From /.test(await page.getAttribute('svg.line', 'aria-label')), line);
check('there is a forecast', /are free: room for/.test(await page.innerText('main')) && /in a week/.test(await page.innerText('main')));
await go('#/space?new=1');
await tiles.first().press('Enter');
await page.waitForFunction(() => location.hash.startsWith('#/files/') && document.body.dataset.ready === location.hash);
check('a tile opens its folder', /path=Documents\/reports/.test(page.url()), page.url());

// Saving in one tab is seen in another.
const other = await context.newPage();
watch(other);
await other.goto(`${origin}/#/`);
await other.waitForFunction(() => document.body.dataset.ready && !document.querySelector('[aria-busy]'));
const count = async () => Number(/(\d+) snapshots/.exec(await other.innerText('.src:first-of-type'))[1]);
const had = await count();
await go('#/');
await page.locator('.src').first().getByRole('button', { name: 'Save' }).click();
await page.waitForSelector('text=Done', { timeout: 30000 });
await other.waitForFunction((old) => Number(/(\d+) snapshots/.exec(document.querySelector('.src').innerText)?.[1]) === old + 1, had, { timeout: 15000 }).catch(() => {});
check('another tab sees the new snapshot', (await count()) === had + 1, `${had}`);
await page.screenshot({ path: join(shots, 'activity-job.png'), fullPage: true });

// A run that somebody else has begun is shown as it goes on, and stopped.
const config = join(home, 'run.toml');
writeFileSync(config, `[vaults.disk]\npath = ${JSON.stringify(env.VAULT_REPO)}\n[sources.slow]\npaths = [${JSON.stringify(source)}]\nbefore = "sleep 60"\n`);
await go('#/activity');
const run = spawn(program, ['run', '--background', '--quiet'], { env: { ...env, VAULT_CONFIG: config }, cwd: home, stdio: 'ignore' });
const over = new Promise((done) => { run.on('exit', done); });
const going = page.locator('section[aria-label="A run goes on"]');
await going.getByRole('button', { name: 'Stop' }).waitFor({ timeout: 30000 });
check('a run of the schedule is shown', /Started by the schedule/.test(await going.innerText()), await going.innerText());
await page.screenshot({ path: join(shots, 'activity-run.png'), fullPage: true });
await going.getByRole('button', { name: 'Stop' }).click();
check('it is stopped from the page', (await over) === 130);
await going.waitFor({ state: 'detached', timeout: 30000 });

// A password is added by whoever knows one.
await go('#/keys');
await page.getByRole('button', { name: 'Add a password' }).click();
const accused = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
check('the form of the keys is for everyone', accused.violations.length === 0, JSON.stringify(accused.violations.map((one) => [one.id, one.nodes[0].html])));
await page.getByLabel('A password that opens the vault now').fill(env.VAULT_PASSWORD);
await page.getByLabel('The new password', { exact: true }).fill('five words that are random');
await page.getByLabel('The new password again').fill('five words that are random');
await page.getByRole('button', { name: 'Add', exact: true }).click();
await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 2, null, { timeout: 60000 });
await page.screenshot({ path: join(shots, 'keys-added.png'), fullPage: true });
check('the new password opens', JSON.parse(execFileSync(program, ['key', 'list', '--json'], { env: { ...env, VAULT_PASSWORD: 'five words that are random' }, encoding: 'utf8' })).slots.length === 2);

// A browser that was not let in sees nothing.
const stranger = await (await browser.newContext()).newPage();
stranger.expects401 = true;
watch(stranger);
await stranger.goto(address);
await stranger.waitForFunction(() => document.body.dataset.ready === 'locked');
check('an address is good once', /not known/.test(await stranger.textContent('h1')));

check('the console is empty', noise.length === 0, noise.join('\n'));
check('no request leaves the origin', abroad.length === 0, abroad.join('\n'));
const memory = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1] ?? 0);
console.log(`the server has ${Math.round(memory / 1024)} MiB`);
await browser.close();
const ended = new Promise((done) => { server.on('exit', done); });
server.kill('SIGINT');
check('Ctrl-C ends it with 0', (await ended) === 0);
check('it said nothing', said === '', said);
rmSync(home, { recursive: true, force: true });
console.log(`${passed} passed, ${failures.length} failed`);
process.exit(failures.length === 0 ? 0 : 1);
