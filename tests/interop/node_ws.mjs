// The node client `ws` against a server: node node_ws.mjs CONFORMANCE_ADDR FRAMES_ADDR

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
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
  ws.on("upgrade", ({ headers }) => { ws.agreed = headers["sec-websocket-extensions"]; });
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

// -- permessage-deflate (RFC 7692) ---------------------------------------------------------------

const deflateRoutes = ["/default-deflate", "/echo-deflate", "/echo-takeover"];

const offers = {
  "its default offer": {},
  "no context takeover": { serverNoContextTakeover: true, clientNoContextTakeover: true },
  "takeover by the server": { clientNoContextTakeover: true },
  "takeover by the client": { serverNoContextTakeover: true },
};
for (const bits of [9, 10, 12, 15]) {
  offers[`windows of ${bits} bits`] = { serverMaxWindowBits: bits, clientMaxWindowBits: bits };
}

const ticks = JSON.stringify(
  Array.from({ length: 2000 }, (_, n) => ({ symbol: "TIDE", price: (n * n) % 997, volume: n })),
);

// One after the other over one connection, each with those before it as its context.
const series = [
  "x", Buffer.from("x"), "", Buffer.alloc(0), "Grüße, 世界 🌊", ticks.slice(0, 300),
  ticks.slice(0, 300), ticks, randomBytes(70_000), "x".repeat(65_535), Buffer.alloc(65_536, 7),
  Buffer.from(ticks), "é".repeat(MIB / 2), Buffer.alloc(MIB, "tide"), "", "the end",
];
const seriesBytes = series.reduce((sum, message) => sum + Buffer.byteLength(message), 0);

/** The answer to an offer, by what the route adds to it. */
function answerTo(offer, path) {
  const apart = path === "/default-deflate";
  return [
    "permessage-deflate",
    (apart || offer.serverNoContextTakeover) && "server_no_context_takeover",
    (apart || offer.clientNoContextTakeover) && "client_no_context_takeover",
    offer.serverMaxWindowBits && `server_max_window_bits=${offer.serverMaxWindowBits}`,
    offer.clientMaxWindowBits && `client_max_window_bits=${offer.clientMaxWindowBits}`,
  ].filter(Boolean).join("; ");
}

/** Has a message sent back; the number of bytes in which it went and came. */
async function echoed(ws, message) {
  const { bytesWritten, bytesRead } = ws._socket;
  ws.send(message);
  assert.deepEqual(await received(ws), message);
  return [ws._socket.bytesWritten - bytesWritten, ws._socket.bytesRead - bytesRead];
}

for (const path of deflateRoutes) {
  for (const [name, offer] of Object.entries(offers)) {
    await check(`${path} compresses with ${name}`, async () => {
      const ws = await connected(`ws://${conformance}${path}`, { perMessageDeflate: offer });
      assert.equal(ws.extensions, "permessage-deflate");
      assert.equal(ws.agreed, answerTo(offer, path));
      let [went, came] = [0, 0];
      for (const message of series) {
        const [out, back] = await echoed(ws, message);
        [went, came] = [went + out, came + back];
      }
      assert.ok(went < seriesBytes / 5, `${seriesBytes} went as ${went}`);
      assert.ok(came < seriesBytes / 5, `${seriesBytes} came as ${came}`);
      ws.close();
    });
  }

  await check(`${path} refers to earlier messages exactly if that was agreed`, async () => {
    const ws = await connected(`ws://${conformance}${path}`, { perMessageDeflate: true });
    const message = ticks.slice(0, 2000);
    const once = await echoed(ws, message);
    const again = await echoed(ws, message);
    if (path === "/default-deflate") {
      assert.deepEqual(again, once);
    } else {
      assert.ok(again.every((bytes, way) => bytes < once[way] / 4), `${once}, then ${again}`);
    }
    ws.close();
  });

  await check(`${path} compresses fragments, and 200 messages in flight`, async () => {
    const ws = await connected(`ws://${conformance}${path}`, { perMessageDeflate: true });
    ws.send(ticks, { fin: false });
    ws.ping("between");
    ws.send(ticks, { fin: true });
    const [pong] = await once(ws, "pong");
    assert.equal(pong.toString(), "between");
    assert.equal(await received(ws), ticks + ticks);
    for (let n = 0; n < 200; n += 1) ws.send(ticks.slice(n, 4 * n));
    for (let n = 0; n < 200; n += 1) assert.equal(await received(ws), ticks.slice(n, 4 * n));
    ws.close();
  });

  await check(`${path} serves a client that offers no compression`, async () => {
    const ws = await connected(`ws://${conformance}${path}`);
    assert.equal(ws.agreed, undefined);
    let came = 0;
    for (const message of series) came += (await echoed(ws, message))[1];
    assert.ok(came > seriesBytes, `${seriesBytes} came as ${came}`);
    ws.close();
  });
}

await check("a message above the limit once inflated is refused with 1009", async () => {
  const ws = await connected(`ws://${conformance}/default-deflate`, { perMessageDeflate: true });
  ws.send(Buffer.alloc(64 * MIB));
  const [code] = await once(ws, "close");
  assert.equal(code, 1009);
});

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
