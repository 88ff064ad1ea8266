// The node client `ws` against a server: node node_ws.mjs CONFORMANCE_ADDR FRAMES_ADDR

import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";

// Installed by the runner, outside of the sources.
const { WebSocket } = createRequire(join(process.env.NODE_MODULES_ROOT, "x"))("ws");

const [conformance, frames] = process.argv.slice(2);
const URL = `ws://${conformance}/echo`;
const DEFAULT_URL = `ws://${conformance}/default`;
const MIB = 1 << 20;

let passed = 0;
let failed = 0;

async function check(name, body) {
  try {
    await within(20_000, body());
    passed += 1;
    console.log(`ok      node ws: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  node ws: ${name}\n${error.stack}`);
  }
}

async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function connected(url, options = {}) {
  const ws = new WebSocket(url, { perMessageDeflate: false, ...options });
  // From the start, so that nothing which comes with the 101 is missed.
  ws.inbox = [];
  ws.on("message", (data, isBinary) => {
    ws.inbox.push(isBinary ? data : data.toString());
    ws.emit("inbox");
  });
  ws.on("error", () => {});
  await once(ws, "open");
  return ws;
}

async function received(ws) {
  while (ws.inbox.length === 0) await once(ws, "inbox");
  return ws.inbox.shift();
}

/** What a refused opening handshake is answered with. */
async function refused(url, options = {}) {
  const ws = new WebSocket(url, options);
  ws.on("error", () => {});
  ws.on("open", () => assert.fail("the server took it"));
  const [, response] = await once(ws, "unexpected-response");
  response.resume();
  return response;
}

const messages = {
  text: "Grüße, 世界 🌊",
  binary: Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
  "an empty text": "",
  "an empty binary message": Buffer.alloc(0),
  "125 bytes": "x".repeat(125),
  "126 bytes": "x".repeat(126),
  "65 535 bytes": "x".repeat(65_535),
  "65 536 bytes": "x".repeat(65_536),
  "1 MiB of text": "é".repeat(MIB / 2),
  "1 MiB of bytes": Buffer.alloc(MIB, 7),
};
for (const [name, message] of Object.entries(messages)) {
  await check(`${name} comes back`, async () => {
    const ws = await connected(URL);
    ws.send(message);
    assert.deepEqual(await received(ws), message);
    ws.close();
  });
}

await check("fragments come back as one message", async () => {
  const ws = await connected(URL);
  ws.send("frag", { fin: false });
  ws.ping("between");
  ws.send("", { fin: false });
  ws.send("ments", { fin: true });
  const [pong] = await once(ws, "pong");
  assert.equal(pong.toString(), "between");
  assert.equal(await received(ws), "fragments");
  ws.close();
});

await check("1 000 messages in flight come back in order", async () => {
  const ws = await connected(URL);
  for (let number = 0; number < 1000; number += 1) ws.send(`message ${number}`);
  for (let number = 0; number < 1000; number += 1) {
    assert.equal(await received(ws), `message ${number}`);
  }
  ws.close();
});

await check("a ping is answered with its payload", async () => {
  const ws = await connected(URL);
  for (const payload of ["", "payload", "p".repeat(125)]) {
    ws.ping(payload);
    const [pong] = await once(ws, "pong");
    assert.equal(pong.toString(), payload);
  }
  ws.close();
});

await check("a pong that nobody asked for is taken", async () => {
  const ws = await connected(URL);
  ws.pong("unsolicited");
  ws.send("after");
  assert.equal(await received(ws), "after");
  ws.close();
});

await check("an offer of compression is declined", async () => {
  const ws = await connected(URL, { perMessageDeflate: true });
  assert.equal(ws.extensions, "");
  ws.send("a".repeat(2000));
  assert.equal(await received(ws), "a".repeat(2000));
  ws.close();
});

for (const [code, reason] of [[1000, ""], [1000, "done"], [1001, "going away"], [4321, "ours"]]) {
  await check(`close ${code} '${reason}' is answered with ${code}`, async () => {
    const ws = await connected(URL);
    ws.close(code, reason);
    const [answered] = await once(ws, "close");
    assert.equal(answered, code);
  });
}

await check("messages in one write with a close are answered before it", async () => {
  const ws = await connected(URL);
  ws._socket.cork();
  ws.send("first");
  ws.send("second");
  ws.close(1000);
  ws._socket.uncork();
  const [code] = await once(ws, "close");
  assert.equal(code, 1000);
  assert.deepEqual(ws.inbox, ["first", "second"]);
});

await check("a handler that returns at the close frame leaves the code as it is", async () => {
  const ws = await connected(`ws://${frames}/ws`);
  ws.close(4000, "from node");
  const [answered] = await once(ws, "close");
  assert.equal(answered, 4000);
});

await check("a message above the limit is refused with 1009 and a reason", async () => {
  const ws = await connected(DEFAULT_URL);
  ws.send(Buffer.alloc(MIB + 1));
  const [code, reason] = await once(ws, "close");
  assert.equal(code, 1009);
  assert.notEqual(reason.toString(), "");
});

await check("a page of another site is refused with 403", async () => {
  const response = await refused(URL, { origin: "http://elsewhere.example" });
  assert.equal(response.statusCode, 403);
});

await check("an unsupported version is refused with 426 and the supported one", async () => {
  const response = await refused(URL, { protocolVersion: 8 });
  assert.equal(response.statusCode, 426);
  assert.equal(response.headers["sec-websocket-version"], "13");
});

await check("an unknown route is a 404", async () => {
  const response = await refused(`ws://${conformance}/nowhere`);
  assert.equal(response.statusCode, 404);
});

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
