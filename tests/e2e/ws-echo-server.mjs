// An echo server with npm's `ws`: prints its port, and runs until its input ends. Over TLS if it is
// given a file with key and certificate.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

import { WebSocketServer } from "ws";

const pem = process.argv[2] && readFileSync(process.argv[2]);
const listener = pem ? https.createServer({ key: pem, cert: pem }) : http.createServer();
const server = new WebSocketServer({
  server: listener,
  maxPayload: 2 ** 24,
  handleProtocols: (offered) => (offered.has("chat") ? "chat" : false),
});
listener.listen(0, "127.0.0.1", () => console.log(listener.address().port));
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => {
    const [word, code, ...reason] = isBinary ? [] : data.toString().split(" ");
    if (word === "close") socket.close(Number(code), reason.join(" "));
    else socket.send(data, { binary: isBinary });
  });
  socket.on("error", () => {});
});
process.stdin.resume().on("end", () => process.exit());
