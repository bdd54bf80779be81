// The pictures of README.md: the page with half a year of an ordinary life, in docs/images/.
//
// node tests/ui/pictures.mjs VAULT FOLDER: the program, and a folder with node_modules (playwright-core).
import { execFileSync, spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const [program, folder] = process.argv.slice(2).map((path) => resolve(path));
const { chromium } = createRequire(join(folder, 'index.js'))('playwright-core');
const browserPath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const images = join(dirname(fileURLToPath(import.meta.url)), '../../docs/images');
mkdirSync(images, { recursive: true });

const home = mkdtempSync(join(tmpdir(), 'vault-pictures-'));
// The same vault each time but for its keys: the store is in a folder of its own, so that its place is short.
const env = { PATH: process.env.PATH, HOME: home, LANG: 'en_US.UTF-8', TZ: 'UTC', VAULT_PASSWORD: 'only for this picture', VAULT_CONFIG: join(home, 'vault.toml'), VAULT_STATE_DIR: join(home, 'state') };
const vault = (...args) => execFileSync(program, args, { env, cwd: home, encoding: 'utf8' });
let state = 1;
const noise = (length) => { const bytes = Buffer.alloc(length); for (let at = 0; at < length; at += 4) { state = (Math.imul(state, 1664525) + 1013904223) >>> 0; bytes.writeUInt32LE(state, at); } return bytes; };
const write = (name, data) => { const path = join(home, name); mkdirSync(dirname(path), { recursive: true }); writeFileSync(path, data); };
const MB = 250000, DAY = 86400000, now = Date.now();
writeFileSync(env.VAULT_CONFIG, `[vaults.disk]\npath = ${JSON.stringify(join(home, 'disk'))}\n` + ['Documents', 'Pictures', 'Projects'].map((name) => `[sources.${name}]\npaths = [${JSON.stringify(join(home, name))}]\nevery = "1d"\n`).join(''));
for (const [name, size] of [['Documents/Taxes/2025/receipts.pdf', 2], ['Documents/Taxes/2026/receipts.pdf', 1], ['Documents/Thesis/figures.zip', 7], ['Documents/Mail/archive.mbox', 9], ['Pictures/2024/Iceland.raw', 12], ['Pictures/2025/Garden.raw', 15], ['Pictures/Scans/albums.tif', 6], ['Projects/site/images.tar', 4], ['Projects/engine/samples.bin', 3]]) write(name, noise(size * MB));
for (const [name, lines] of [['insurance.txt', 40], ['landlord 2025.txt', 25], ['school.txt', 60], ['town hall.txt', 18], ['to Ms Harper.odt', 400]]) write(`Documents/Letters/${name}`, 'Dear Sir or Madam,\n'.repeat(lines));
const letter = (draft) => `Dear Ms Harper,\n\nthank you for your letter of 3 March.\n${Array.from({ length: draft }, (_, at) => `${['We would like to renew the lease', 'The heating was repaired in May', 'Please find the figures enclosed', 'The garden is part of it'][at % 4]} (${at + 1}).\n`).join('')}\nYours sincerely\n`;
vault('init', '--repo', 'disk');
let draft = 0;
for (let age = 170; age >= 1; age -= age > 45 ? 12 : 1) {
  const time = new Date(now - age * DAY).toISOString();
  write(`Pictures/2026/${['Lisbon', 'Alps', 'Home'][age % 3]}/IMG_${4000 + age}.jpg`, noise(Math.round(MB * (0.4 + (age % 7) / 5))));
  if (age % 12 === 2) write('Documents/Letters/lease.txt', letter(draft += 1));
  if (age % 2 === 0) write('Projects/engine/src/main.rs', `fn main() {\n    println!("{}", ${age});\n}\n`.repeat(1 + (age % 3)));
  for (const source of ['Documents', 'Pictures', 'Projects']) {
    if (age % 11 === 4 || (source === 'Projects' && age % 7 > 4)) continue;
    vault('snapshot', join(home, source), '--repo', 'disk', '--source', source, '--time', time);
  }
}
vault('key', 'add', '--repo', 'disk', '--recovery-key', '--label', 'paper');
vault('run', '--now', '--quiet');
vault('drill', '--repo', 'disk', '--quiet');

const server = spawn(program, ['ui', '--no-open', '--repo', 'disk'], { env, cwd: home, stdio: ['ignore', 'pipe', 'inherit'] });
const address = await new Promise((found, lost) => {
  let text = '';
  server.stdout.on('data', (data) => { text += data; const match = /http:\/\/\S+/.exec(text); if (match) found(match[0]); });
  server.on('exit', () => lost(new Error(`it ended: ${text}`)));
});
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
const page = await (await browser.newContext({ viewport: { width: 1140, height: 660 }, locale: 'en-US', timezoneId: 'UTC', reducedMotion: 'reduce', colorScheme: 'light' })).newPage();
const ready = () => page.waitForFunction(() => document.body.dataset.ready && !document.querySelector('[aria-busy]'));
await page.goto(address);
await ready();
// What the picture says of the machine is nobody's business.
const clean = () => page.evaluate((place) => {
  const names = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = names.nextNode(); node; node = names.nextNode()) node.data = node.data.replaceAll(place, '/mnt').replace(/You are \S+ on \S+\./, 'You are ann on laptop.');
}, home);
let sum = 0;
for (const [name, hash, prepare] of [
  ['overview', '#/'],
  ['files', null, async () => { await page.getByRole('button', { name: 'Versions' }).click(); await page.waitForSelector('.vers li'); await page.getByRole('button', { name: 'What changed' }).first().click(); await page.waitForSelector('pre.view .add'); }],
  ['space', '#/space'],
]) {
  const last = JSON.parse(vault('list', '--repo', 'disk', '--json')).snapshots.findLast((info) => info.source === 'Documents');
  const to = hash ?? `#/files/${last.id}?path=Documents/Letters/lease.txt`;
  await page.evaluate((next) => { delete document.body.dataset.ready; if (location.hash === next) dispatchEvent(new HashChangeEvent('hashchange')); else location.hash = next; }, to);
  await ready();
  await prepare?.();
  await page.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
  await page.mouse.move(0, 0);
  await clean();
  const path = join(images, `${name}.png`);
  await page.screenshot({ path });
  sum += statSync(path).size;
  console.log(`${path}: ${statSync(path).size} bytes`);
}
await browser.close();
const ended = new Promise((done) => { server.on('exit', done); });
server.kill('SIGINT');
await ended;
rmSync(home, { recursive: true, force: true });
if (sum > 300 << 10) { console.log(`the pictures are too large: ${sum} bytes`); process.exit(1); }
