// `ws` on Node.js, with bufferutil: echo, or every message to all connections.
import { createServer as plain } from 'node:http';
import { createServer as secure } from 'node:https';
import { readFileSync } from 'node:fs';
import { WebSocketServer } from 'ws';

const { port, backlog, maxSize, broadcast, tls, deflate } = JSON.parse(process.argv[2]);
const pem = tls && readFileSync(tls);
const server = tls ? secure({ cert: pem, key: pem }) : plain();
const sockets = new WebSocketServer({ server, perMessageDeflate: deflate, maxPayload: maxSize });

sockets.on('connection', (socket) => {
  socket.on('error', () => {});
  if (broadcast) {
    socket.on('message', (data, binary) => {
      for (const other of sockets.clients) other.send(data, { binary });
    });
  } else {
    socket.on('message', (data, binary) => socket.send(data, { binary }));
  }
});
server.listen({ port, host: '127.0.0.1', backlog });
