// BullMQ and Nodemailer's pool on Node: https://docs.bullmq.io, https://nodemailer.com/smtp/pooled. The same commands as
// benchmarks/contract.py describes; the environment says how: SMTP_PORT, CONCURRENCY, MAIL (the folder of templates),
// and for signing DKIM_KEY (a file), DKIM_DOMAIN, DKIM_SELECTOR.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { Queue, Worker } = require('bullmq');
const nodemailer = require('nodemailer');

const TELL_MS = 10;
const CHUNK = 1000;
// As ADR-005 has it; jobs are dropped when they are done.
const OPTIONS = { removeOnComplete: true, attempts: 3, backoff: { type: 'exponential', delay: 5000 } };
const DOMAINS = ['gmail.com', 'outlook.com', 'yahoo.com', 'icloud.com', 'gmx.de', 'firm.example'];
const SENDER = { name: 'News of Postroad', address: 'news@sender.example' };
const POSTAL_ADDRESS = 'Postroad, 1 Old Post Road, 12345 Milestone';

function connectionOf(url) {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port), maxRetriesPerRequest: null };
}

function versionOf(name) {
  return JSON.parse(fs.readFileSync(path.join(process.env.NODE_PATH, name, 'package.json'))).version;
}

function describe() {
  const signed = process.env.DKIM_KEY ? ', DKIM rsa-2048' : '';
  console.log(JSON.stringify({
    versions: {
      bullmq: versionOf('bullmq'), ioredis: versionOf('ioredis'), nodemailer: versionOf('nodemailer'),
      node: process.versions.node,
    },
    enqueue: `addBulk, ${CHUNK} jobs a call`,
    worker: `concurrency ${process.env.CONCURRENCY}, a pool of as many connections${signed}`,
    source: 'https://nodemailer.com/smtp/pooled',
  }));
}

function jobOf(n) {
  const fields = {
    first_name: `Ada${n % 1000}`,
    last_name: `Müller-${n % 7919}`,
    company: `Example & Sons ${n % 311}`,
    city: `Springfield ${n % 97}`,
    plan: ['free', 'team', 'business'][n % 3],
    product: 'Planner',
  };
  return { name: 'send', data: { touch: n, address: `reader.${n}@${DOMAINS[n % DOMAINS.length]}`, fields }, opts: OPTIONS };
}

async function enqueue(url, warm, jobs) {
  const queue = new Queue('mail', { connection: connectionOf(url) });
  async function put(from, to) {
    for (let n = from; n < to; n += CHUNK) {
      await queue.addBulk(Array.from({ length: Math.min(CHUNK, to - n) }, (_, i) => jobOf(n + i)));
    }
  }
  await queue.waitUntilReady();
  await put(0, warm);
  const start = process.hrtime.bigint();
  await put(warm, warm + jobs);
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  await queue.close();
  console.log(JSON.stringify({ seconds }));
}

// Literals and names in turn, so that a merge is one join: quicker than any template engine.
function compile(source, escape) {
  const parts = source.split(/\{\{ (\w+) \}\}/);
  return (fields) => parts.map((part, i) => (i % 2 ? escape(fields[part]) : part)).join('');
}

const MARKS = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const asIs = (text) => text;
const inHtml = (text) => text.replace(/[&<>"']/g, (mark) => MARKS[mark]);

function work(url) {
  const concurrency = Number(process.env.CONCURRENCY);
  const read = (name) => fs.readFileSync(path.join(process.env.MAIL, name), 'utf8');
  const subject = compile('{{ first_name }}, what is new in {{ product }}', asIs);
  const text = compile(read('text.txt'), asIs);
  const html = compile(read('html.html'), inHtml);
  const transport = nodemailer.createTransport({
    pool: true,
    host: '127.0.0.1',
    port: Number(process.env.SMTP_PORT),
    secure: false,
    ignoreTLS: true,
    maxConnections: concurrency,
    maxMessages: Infinity,
    ...(process.env.DKIM_KEY && {
      dkim: {
        domainName: process.env.DKIM_DOMAIN,
        keySelector: process.env.DKIM_SELECTOR,
        privateKey: fs.readFileSync(process.env.DKIM_KEY, 'utf8'),
      },
    }),
  });
  let count = 0;
  let told = 0;

  async function send({ data }) {
    const unsubscribe = `https://mail.sender.example/u/${data.touch}`;
    const fields = { ...data.fields, unsubscribe_url: unsubscribe, postal_address: POSTAL_ADDRESS };
    await transport.sendMail({
      from: SENDER,
      to: data.address,
      envelope: { from: `bounce+${data.touch}@bounce.sender.example`, to: data.address },
      messageId: `<${data.touch}@sender.example>`,
      subject: subject(fields),
      text: text(fields),
      html: html(fields),
      headers: {
        'List-Unsubscribe': `<${unsubscribe}>, <mailto:unsubscribe+${data.touch}@bounce.sender.example>`,
        'List-Unsubscribe-Post': 'List-Unsubscribe=One-Click',
      },
    });
    count += 1;
  }

  process.stdout.write('ready\n');
  process.stdin.once('data', () => {
    setInterval(() => {
      if (count !== told) {
        told = count;
        const cpu = process.cpuUsage();
        process.stdout.write(`${count} ${process.hrtime.bigint()} ${(cpu.user + cpu.system) * 1000}\n`);
      }
    }, TELL_MS);
    const worker = new Worker('mail', send, { connection: connectionOf(url), concurrency });
    worker.on('failed', (job, error) => process.stderr.write(`${error.message}\n`));
  });
}

const [command, ...rest] = process.argv.slice(2);
if (command === 'describe') describe();
else if (command === 'enqueue') enqueue(rest[0], Number(rest[1]), Number(rest[2]));
else if (command === 'work') work(rest[0]);
else process.exitCode = 2;
