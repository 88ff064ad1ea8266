// An echo server of the node library `ws`, for `client.py`.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

// Installed by the runner, outside of the sources.
const { WebSocketServer } = createRequire(join(process.env.NODE_MODULES_ROOT, "x"))("ws");

const server = createServer();
const sockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => (offered.has("chat") ? "chat" : false),
});

server.on("upgrade", (request, socket, head) => {
  if (request.url === "/secret" && request.headers["x-token"] !== "42") {
    socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 13\r\n\r\nwho are you?\n");
    return;
  }
  sockets.handleUpgrade(request, socket, head, (ws) => {
    ws.on("message", (data, isBinary) => {
      if (data.toString() === "close") ws.close(4001, "as you wish");
      else ws.send(data, { binary: isBinary });
    });
  });
});

server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
