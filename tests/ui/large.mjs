// How fast the page is on a large vault: 600 snapshots of 200,000 files, 10,000 of them in one folder.
//
// node tests/ui/large.mjs VAULT FOLDER [ROUNDS]: the program (built with optimization), and a folder with node_modules
// (playwright-core). Takes some minutes and 2 GB in the folder for temporary files. Prints for each screen how long it takes from the
// click until nothing on it is waited for, beside what the requests for it took, and the memory of the program.
import { execFileSync, spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const [program, folder] = process.argv.slice(2).map((path) => resolve(path));
const rounds = Number(process.argv[4] ?? 3), SNAPSHOTS = 600, HOUR = 3600000;
const { chromium } = createRequire(join(folder, 'index.js'))('playwright-core');
const browserPath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const home = mkdtempSync(join(tmpdir(), 'vault-large-'));
const env = { PATH: process.env.PATH, HOME: home, LANG: 'en_US.UTF-8', TZ: 'UTC', VAULT_PASSWORD: 'only for this test', VAULT_REPO: join(home, 'store'), VAULT_STATE_DIR: join(home, 'state') };
const vault = (...args) => execFileSync(program, args, { env, cwd: home, encoding: 'utf8', maxBuffer: 1 << 28 });
const two = (number) => String(number).padStart(2, '0'), tree = join(home, 'tree');
const topic = (number) => join(tree, `area-${two(number % 20)}`, `topic-${two(number % 50)}`);

mkdirSync(join(tree, 'flat'), { recursive: true });
for (let number = 0; number < 10000; number += 1) writeFileSync(join(tree, 'flat', `photo-${String(number).padStart(5, '0')}.jpg`), `${number} `.repeat(number % 60));
for (let area = 0; area < 20; area += 1) {
  for (let at = 0; at < 50; at += 1) {
    const place = join(tree, `area-${two(area)}`, `topic-${two(at)}`);
    mkdirSync(place, { recursive: true });
    for (let number = 0; number < 190; number += 1) writeFileSync(join(place, `file-${number}.txt`), `${area} ${at} ${number}\n`.repeat(number % 40));
  }
}
vault('init');
const now = Date.now();
for (let number = SNAPSHOTS; number >= 1; number -= 1) {
  appendFileSync(join(topic(number), `file-${number % 190}.txt`), `change ${number}\n`);
  writeFileSync(join(topic(number), `note-${number}.txt`), `new ${number}\n`);
  vault('snapshot', tree, '--quiet', '--source', 'Documents', '--time', new Date(now - number * HOUR).toISOString());
}
const list = JSON.parse(vault('list', '--json')).snapshots;
const server = spawn(program, ['ui', '--no-open'], { env, cwd: home, stdio: ['ignore', 'pipe', 'inherit'] });
const address = await new Promise((found) => {
  let text = '';
  server.stdout.on('data', (data) => { text += data; const match = /http:\/\/\S+/.exec(text); if (match) found(match[0]); });
});
process.on('exit', () => { server.kill('SIGKILL'); rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }); });
const memory = () => `${Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))[1]) / 1024)} MiB`;
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
const page = await (await browser.newContext({ viewport: { width: 1280, height: 860 }, reducedMotion: 'reduce' })).newPage();
let requests = new Map(), open = 0;
page.on('request', () => { open += 1; });
page.on('requestfailed', () => { open -= 1; });
page.on('requestfinished', (request) => {
  open -= 1;
  const name = new URL(request.url()).pathname.split('/').at(-1);
  if (request.url().includes('/api/')) requests.set(name, Math.max(requests.get(name) ?? 0, Math.round(request.timing().responseEnd)));
});
async function go(hash) {
  await page.evaluate((to) => { delete document.body.dataset.ready; if (location.hash === to) dispatchEvent(new HashChangeEvent('hashchange')); else location.hash = to; }, hash);
  await page.waitForFunction((to) => document.body.dataset.ready === to && !document.querySelector('[aria-busy]'), hash, { timeout: 120000, polling: 5 });
}
// One request stays: the stream of events.
async function settled() {
  while (open > 1) await new Promise((done) => setTimeout(done, 50));
}

const begun = Date.now();
await page.goto(address);
await page.waitForFunction(() => document.body.dataset.ready && !document.querySelector('[aria-busy]'));
console.log(`${list.length} snapshots; first screen after ${Date.now() - begun} ms`);
const last = list.at(-1).id, before = list.at(-2).id, long = list.at(-300).id;
const screens = {
  overview: '#/', files: `#/files/${last}`, 'folder of 10,000': `#/files/${last}?path=tree/flat`, 'the same, 300 snapshots ago': `#/files/${long}?path=tree/flat`,
  file: `#/files/${last}?path=tree/flat/photo-00001.jpg`, restore: `#/restore/${last}?path=tree/flat`, activity: '#/activity', search: '#/search?q=photo-00777',
  compare: `#/compare/${before}/${last}`, 'compare with 300 snapshots ago': `#/compare/${long}/${last}`, keep: '#/keep', space: '#/space', news: '#/space?new=1', health: '#/health', keys: '#/keys', settings: '#/settings', guide: '#/guide',
};
for (const [name, hash] of Object.entries(screens)) {
  const took = [];
  for (let round = 0; round < rounds; round += 1) {
    await go('#/activity');
    await settled();
    requests = new Map();
    const since = Date.now();
    await go(hash);
    took.push(Date.now() - since);
    await settled();
    if (round === 0) took.asked = [...requests].map(([of, ms]) => `${of} ${ms}`).join(', ');
  }
  console.log(`${name}: ${took.join(', ')} ms (first round: ${took.asked || 'nothing asked'})`);
}
console.log(`the server has ${memory()}`);
await browser.close();
await new Promise((done) => setTimeout(done, 36000));
console.log(`and ${memory()} when nothing has been asked for half a minute`);
process.exit(0);
