// BullMQ on Node: https://docs.bullmq.io. The same commands as benchmarks/contract.py describes.
'use strict';

const path = require('node:path');
const { Queue, Worker } = require('bullmq');

const TELL_MS = 10;
const CHUNK = 1000;
const OPTIONS = { removeOnComplete: true };

function connectionOf(url) {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port), maxRetriesPerRequest: null };
}

function versionOf(name) {
  // Not every package exports its package.json; this one's folder holds it all the same.
  return require(path.join(process.env.NODE_PATH, name, 'package.json')).version;
}

function describe() {
  console.log(JSON.stringify({
    versions: { bullmq: versionOf('bullmq'), ioredis: versionOf('ioredis'), node: process.versions.node },
    enqueue: `addBulk, ${CHUNK} jobs a call`,
    worker: 'concurrency 100, removeOnComplete, ioredis',
    source: 'https://docs.bullmq.io/guide/parallelism-and-concurrency',
  }));
}

async function enqueue(url, warm, jobs, size) {
  const payloads = Array.from({ length: warm + jobs }, (_, n) => String(n).padStart(size, '0'));
  const queue = new Queue('bench', { connection: connectionOf(url) });
  async function put(some) {
    for (let from = 0; from < some.length; from += CHUNK) {
      await queue.addBulk(some.slice(from, from + CHUNK).map((payload) => ({ name: 'noop', data: { payload }, opts: OPTIONS })));
    }
  }
  await queue.waitUntilReady();
  await put(payloads.slice(0, warm));
  const start = process.hrtime.bigint();
  await put(payloads.slice(warm));
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  await queue.close();
  console.log(JSON.stringify({ seconds }));
}

function work(url) {
  let count = 0;
  let told = 0;
  process.stdout.write('ready\n');
  process.stdin.once('data', () => {
    setInterval(() => {
      if (count !== told) {
        told = count;
        const cpu = process.cpuUsage();
        process.stdout.write(`${count} ${process.hrtime.bigint()} ${(cpu.user + cpu.system) * 1000}\n`);
      }
    }, TELL_MS);
    new Worker('bench', async () => { count += 1; }, { connection: connectionOf(url), concurrency: 100 });
  });
}

const [command, ...rest] = process.argv.slice(2);
if (command === 'describe') describe();
else if (command === 'enqueue') enqueue(rest[0], Number(rest[1]), Number(rest[2]), Number(rest[3]));
else if (command === 'work') work(rest[0]);
else process.exitCode = 2;
